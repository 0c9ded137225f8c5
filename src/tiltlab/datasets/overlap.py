"""Keeping what is learnt from apart from what is reported: no question stands in two splits, however it is punctuated.

Left out on purpose: fuzzy matching. Two questions that differ in a number are two questions.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from tiltlab.types import Problem

SHOWN = 3
"""Ids in a note."""


def apart(
    rows: Sequence[Problem], split: str, others: Sequence[Problem], other: str
) -> tuple[list[Problem], list[str]]:
    """The rows whose questions do not stand among `others`, and a note on the ones that do, if any.

    split, other: what the note calls the two.
    """
    seen = {normal(problem.question) for problem in others}
    kept: list[Problem] = []
    dropped: list[Problem] = []
    for problem in rows:
        (dropped if normal(problem.question) in seen else kept).append(problem)
    if not dropped:
        return kept, []
    stand = "row of {} stands" if len(dropped) == 1 else "rows of {} stand"
    ids = listed(problem.id for problem in dropped)
    return kept, [f"{len(dropped)} {stand.format(split)} in {other} too, and {_were(dropped)} left out: {ids}"]


def listed(ids: Iterable[str]) -> str:
    """A few ids, and dots where there are more."""
    first = [*ids]
    return ", ".join(first[:SHOWN]) + ", ..." * (len(first) > SHOWN)


def normal(text: str) -> str:
    """What two wordings of one question share.

    Left out are case, sentence punctuation (a point, comma or colon between digits is a part of the number), spaces
    beside signs, and braces around one character, as in x^{2}.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"""(?<!\d)[.,;:!?"']|[.,;:!?"'](?!\d)""", "", plain)
    plain = re.sub(r"\{(\w)\}", r"\1", plain)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(plain.split()))


def _were(rows: Sequence[Problem]) -> str:
    return "was" if len(rows) == 1 else "were"
