"""Text of models, data and names as people are to see it: nothing in it works on the page or the terminal unseen."""

from unicodedata import category

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Control characters, marks that change the direction or hide, halves of surrogate pairs, and separators of lines."""

_JOINERS = "\u200c\u200d"
"""Persian and emoji are spelled with them."""


def visible(text: str, kept: str = "\n\t") -> str:
    """The text with every character that works unseen (ESC, a right-to-left override, half of a surrogate pair) written
    out, as ␛ or \\u202e.

    kept: such characters that may stay.
    """
    return text if text.isprintable() else "".join(_shown(c) if c not in kept else c for c in text)


def on_one_line(text: str) -> str:
    """`visible`, with line breaks and tabs written out too."""
    return visible(text, kept="")


def _shown(c: str) -> str:
    if category(c) not in _UNSEEN or c in _JOINERS:
        return c
    if c < " ":
        return chr(0x2400 + ord(c))
    return "␡" if c == "\x7f" else c.encode("unicode_escape").decode("ascii")
