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
    """What stands in the last complete \\boxed{...}; None where there is none. One left open is not an answer."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start:end].strip()
    return None


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
