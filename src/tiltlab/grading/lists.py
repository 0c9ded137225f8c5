"""Answers of several entries: lists, sets, tuples, intervals and unions of intervals, inequalities as intervals.

A list without brackets, and one in braces, is a set: 1, 2 is 2, 1. Round and square brackets keep the order. Entries
are counted: 2 is not 2, 2.

Left out on purpose: what the entries say (compare.py hands over how two of them compare).
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

Agree = Callable[[str, str], bool | None]


class Items(NamedTuple):
    """The entries of an answer.

    entries: in the order they stand in; those of a union are intervals.
    opened, closed: the brackets around them; "U" and "U" for a union, empty for a list without brackets.
    """

    entries: tuple[str, ...]
    opened: str = ""
    closed: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the order of the entries counts."""
        return self.opened in ("(", "[")

    @property
    def nested(self) -> bool:
        """Whether an entry has brackets itself, or is a union."""
        return any(re.search(r"[(\[{]|\\cup", entry) for entry in self.entries)

    def agrees(self, gold: "Items", same: Agree) -> bool | None:
        """Whether these are the gold answer's entries, in its order where there is one; None where that is uncertain.

        same: whether two entries are the same, likewise.
        """
        brackets = {self.opened + self.closed, gold.opened + gold.closed}
        if len(brackets) == 2 and "" not in brackets:
            return False if not any("{" in pair for pair in brackets) else None
        if len(self.entries) != len(gold.entries):
            return None if "\\pm" in "".join(self.entries + gold.entries) else False
        if self.ordered or gold.ordered:
            return _all([same(one, other) for one, other in zip(self.entries, gold.entries, strict=True)])
        return _matched(self.entries, gold.entries, same)


def items_of(text: str, like: Items | None = None) -> Items | None:
    """The entries of an answer; None where it has not several, nor set brackets around one.

    text: in its plain spelling (`spelling.plain`).
    like: the other answer's entries; where it has some, a comma is no sign of thousands.
    """
    text = _as_interval(text)
    parts = _split(text, r"\\cup(?![a-zA-Z])")
    if len(parts) > 1:
        return Items(tuple(part.strip() for part in parts), "U", "U")
    opened, closed, inside = _brackets(text)
    if not opened and not like and re.fullmatch(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+", text):
        return None
    parts = [entry for part in _split(inside, r"[,;]") for entry in _conjoined(part)]
    flat = tuple(entry.strip() for part in parts if part.strip() for entry in _plus_and_minus(part))
    if not flat or any("..." in entry for entry in flat):
        return None
    return Items(flat, opened, closed) if len(flat) > 1 or opened == "\\{" else None


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _matched(ones: Sequence[str], others: Sequence[str], same: Agree) -> bool | None:
    """Whether each entry has one of its own among the others. None where that hangs on an uncertain pair."""
    table = [[same(one, other) for other in others] for one in ones]
    if any(all(verdict is False for verdict in row) for row in table):
        return False
    if any(all(row[j] is False for row in table) for j in range(len(others))):
        return False
    left = set(range(len(others)))
    for row in table:
        mate = next((j for j in sorted(left) if row[j]), None)
        if mate is None:
            return None if any(None in row for row in table) else False
        left.remove(mate)
    return True


def _brackets(text: str) -> tuple[str, str, str]:
    """The brackets around all of a text, and what is inside; none where there are none."""
    match = re.fullmatch(r"(\\\{|\(|\[|\\langle(?![a-z]))(.*)(\\\}|\)|\]|\\rangle)", text, re.DOTALL)
    if not match or not _balanced(match[2]):
        return "", "", text
    angle = match[1] == "\\langle"
    return ("(", ")", match[2]) if angle else (match[1], match[3], match[2])


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators outside all brackets."""
    parts, start, depth = [], 0, 0
    for match in re.finditer(separator + r"|[(\[{]|[)\]}]", text):
        if match[0] in "([{":
            depth += 1
        elif match[0] in ")]}":
            depth -= 1
        elif depth == 0 and not _between_thousands(text, match):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _between_thousands(text: str, comma: re.Match[str]) -> bool:
    """A comma within a number of a list that has spaces behind its commas: 1,000, 2,000."""
    if comma[0] != "," or not re.search(r",\s", text):
        return False
    return re.search(r"(?<![\d,])[1-9]\d{0,2}(?:,\d{3})*$", text[: comma.start()]) is not None and bool(
        re.match(r"\d{3}(?!\d)", text[comma.end() :])
    )


_AND = re.compile(
    r'\s*(?:"\s*(?:and|or)\s*"|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])|\\(?:vee|lor|wedge|land)(?![a-zA-Z]))\s*'
)


def _conjoined(part: str) -> list[str]:
    return [piece for piece in _AND.split(part) if piece.strip()]


def _plus_and_minus(entry: str) -> tuple[str, ...]:
    """\\pm 2 is 2 and -2."""
    match = re.fullmatch(
        r"(\s*(?:[a-zA-Z]\s*=)?\s*)\\pm\s*([\d.]+|\\(?:frac\{\w+\}\{\w+\}|sqrt\{\w+\})|\d*\\sqrt\{\w+\})\s*", entry
    )
    return (f"{match[1]}{match[2]}", f"{match[1]}-{match[2]}") if match else (entry,)


_BOUND = r"([^<>=,]+?)"
_LESS = r"\s*(<|\\le(?![a-zA-Z]))\s*"
_MORE = r"\s*(>|\\ge(?![a-zA-Z]))\s*"
_TWO = re.compile(rf"{_BOUND}{_LESS}([a-zA-Z]){_LESS}{_BOUND}")
_TWO_DOWN = re.compile(rf"{_BOUND}{_MORE}([a-zA-Z]){_MORE}{_BOUND}")
_ONE = re.compile(rf"([a-zA-Z])\s*(<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))\s*{_BOUND}")
_ONE_TURNED = re.compile(rf"{_BOUND}\s*(<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))\s*([a-zA-Z])")
_BUILT = re.compile(r"\\\{\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?::|\\mid|\||\\vert)\s*(.+?)\s*\\\}")
_OR = re.compile(r'\s*(?:"\s*or\s*"|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:vee|lor|cup)(?![a-zA-Z])|,)\s*')
_BOTH = re.compile(r'\s*(?:"\s*and\s*"|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:wedge|land)(?![a-zA-Z]))\s*')
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


def _as_interval(text: str) -> str:
    """Inequalities in one variable as intervals: x < -1 or x > 4 is (-\\infty,-1) \\cup (4,\\infty). Other text
    stays."""
    if not re.search(r"[<>]|\\[lg]e(?![a-zA-Z])", text):
        return text
    if built := _BUILT.fullmatch(text):
        text = built[1]
    both = [interval for part in _BOTH.split(text) if (interval := _interval(part)) is not None]
    if len(both) == 2:
        return _meet(*both) or text
    parts = _OR.split(text)
    ranges = [interval for part in parts if (interval := _interval(part)) is not None]
    return " \\cup ".join(ranges) if len(ranges) == len(parts) else text


def _meet(one: str, other: str) -> str | None:
    """Where one interval is bounded below and the other above."""
    low, high = (one, other) if "\\infty)" in one else (other, one)
    if not low.endswith(",\\infty)") or not high.startswith("(-\\infty,"):
        return None
    return low.removesuffix(",\\infty)") + "," + high.removeprefix("(-\\infty,")


def _interval(text: str) -> str | None:
    text = text.strip()
    if match := _TWO.fullmatch(text):
        return (
            f"{'(' if match[2] == '<' else '['}{match[1].strip()},{match[5].strip()}{')' if match[4] == '<' else ']'}"
        )
    if match := _TWO_DOWN.fullmatch(text):
        return (
            f"{'(' if match[4] == '>' else '['}{match[5].strip()},{match[1].strip()}{')' if match[2] == '>' else ']'}"
        )
    match = _ONE.fullmatch(text)
    turned = None if match else _ONE_TURNED.fullmatch(text)
    if match and not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]+", "", match[3])):
        sign, bound = match[2], match[3].strip()
    elif turned and not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]+", "", turned[1])):
        sign, bound = _TURNED[turned[2]], turned[1].strip()
    elif re.fullmatch(r"[(\[].*[)\]]", text):
        return text
    else:
        return None
    if sign in ("<", "\\le"):
        return f"(-\\infty,{bound}{')' if sign == '<' else ']'}"
    return f"{'(' if sign == '>' else '['}{bound},\\infty)"
