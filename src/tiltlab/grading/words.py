"""Answers that are words, or one of several choices. Words are words: `on` is not `No`, though n o is o n.

Left out on purpose: meaning. `none` and `no solution` are other words.
"""

import re

_COMMON = """
    am an as at be by do go he hi if in is it me my no of ok on or so to up us we yes not odd all any one two six ten
    old new big red low sun mon tue wed thu fri sat may her his her she him you are was can man men boy cat dog rat tar
    net tow saw
"""
_SHORT = frozenset(_COMMON.split())
_FUNCTION = "sin cos tan cot sec csc log ln exp lim max min mod gcd lcm det arg sup inf sqrt frac"
_FUNCTIONS = frozenset(_FUNCTION.split())
_LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_GREEK = frozenset(_LETTERS.split())
_SAID = re.compile(r"(?:the |an? |it is |it's )+")
_CHOICE = re.compile(
    r"\s*(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z])\)|\[([A-Z])\]|([A-Z])\)|([A-Z])\s*[:.](?!\d)|([A-Z])(?=\s*$))\s*(.*)",
    re.I,
)
_TAKES_BACK = re.compile(  # (B) or (C), B) C), (B) is wrong
    r"^(?:or|and|nor|,|/)(?![a-z])|\([A-Z]\)|^[A-J][).]|\[[A-J]\]|^is\s+(?:not|wrong|incorrect|false|impossible)\b",
    re.I,
)


def words_of(text: str) -> str | None:
    """The words of an answer that is words and nothing else, in small letters, one space between; else None.

    text: in its plain spelling (`spelling.plain`). Letters that are a product of variables (xy, abc) are no words
        unless they stood as text.
    """
    bare = text.replace('"', " ")
    if not re.fullmatch(r"[^\W\d_][^\d_\\^=+<>|{}*/%$]*", bare.strip()):
        return None
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", bare)
    quoted = '"' in text
    if not any(_is_word(word, quoted) for word in words) or "," in bare:
        return None
    said = " ".join(words).casefold()
    return _SAID.sub("", said, count=1) if _SAID.match(said) and len(words) > 1 else said


def unread_words(text: str) -> frozenset[str]:
    """The words in an answer that is no words alone: algebra would take them for products of letters."""
    quoted = {
        word for span in re.findall(r'"([^"]*)"', text) for word in re.findall(r"[a-z]+", span.lower()) if len(word) > 1
    }
    bare = {
        word.lower()
        for word in re.findall(r"(?<![\\a-zA-Z{])[A-Za-z]+(?![a-zA-Z])", re.sub(r"\\(?:begin|end)\{\w+\}", "", text))
    }
    words = quoted | {word for word in bare if _is_word(word, False)}
    return frozenset(words - _FUNCTIONS - _GREEK)


def _is_word(word: str, quoted: bool) -> bool:
    small = word.lower()
    if small in _FUNCTIONS or (len(word) < 2):
        return False
    if quoted or small in _SHORT or len(word) > 3:
        return not re.fullmatch(r"(?:sin|cos|tan|log|ln|exp)[a-z]?", small)
    capital = word[0].isupper()  # Amy, RAT; not the segment AB
    return (capital and len(word) > 2) or (capital and word[1:].islower() and small in _SHORT)


def choice(text: str) -> tuple[str, str, bool] | None:
    """A choice as (its letter, what stands behind it, whether it is marked); None where there is no such letter.

    Marked is (E) or E., in contrast to a letter alone.
    """
    bare = re.sub(r"\s+", " ", text.replace('"', " ")).strip()
    match = _CHOICE.fullmatch(bare)
    if not match or _TAKES_BACK.search(match[6]):
        return None
    letter = next(group for group in match.groups()[:5] if group)
    alone = match[5] is not None and len(bare) == 1
    if not alone and letter.upper() > "J":
        return None
    if alone and not letter.isupper():
        return None
    return letter.upper(), match[6].strip(), not alone
