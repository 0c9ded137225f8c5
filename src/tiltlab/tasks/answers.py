"""Reading an answer out of a response, and comparing numbers, without trusting the text.

Left out on purpose: symbolic mathematics. Answers here are numbers; expressions need a verifier of their own.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

from tiltlab.types import Grade

Reading = Literal["boxed", "first_line"]

LONGEST = 40
"""Characters of an answer that is worth reading: digit runs without end are how graders are hung."""


def grade_number(text: str, gold: str, reading: Reading) -> Grade:
    """Whether the number read out of `text` equals the gold answer."""
    answer = {"boxed": last_boxed, "first_line": first_line}[reading](text)
    value = number(answer) if answer is not None else None
    if value is None:
        return Grade(0.0, None, "no_answer")
    correct = value == number(gold)
    return Grade(float(correct), f"{value.normalize():f}", "correct" if correct else "wrong")


def last_boxed(text: str) -> str | None:
    """What stands in the last complete \\boxed{...}; None where there is none. One left open is not an answer.

    One pass with a stack: to look for each box's end anew would be quadratic in boxes left open.
    """
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where the inside of a box begins, None for other braces
    for match in re.finditer(r"\\(?:boxed|fbox)\s*\{|[{}]", text):
        if match[0] != "}":
            opened.append(None if match[0] == "{" else match.end())
        elif opened and (start := opened.pop()) is not None:
            last = max(last or (0, 0), (start, match.start()))
    return text[slice(*last)].strip() if last else None


def first_line(text: str) -> str | None:
    """The first line, which must be the answer and nothing else."""
    return text.strip().split("\n", 1)[0].strip() or None


def number(text: str) -> Decimal | None:
    """The number that `text` is, thousands commas and a dollar or percent sign aside; None where it is none."""
    text = text.strip().rstrip(".").replace("\\$", "").replace("\\%", "").strip("$% ")
    if len(text) > LONGEST or not re.fullmatch(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?", text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
