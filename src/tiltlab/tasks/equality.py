"""Whether two expressions are equal as mathematics, by math-verify. Runs in workers (jail.py), for it may hang.

Left out on purpose: reading answers out of responses, and all that is decided without algebra (grading.py).
"""

import logging
from functools import lru_cache
from typing import Any

logging.disable(logging.WARNING)  # its warning that its own time limits are off; the worker's deadline is the limit

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify  # noqa: E402
from sympy import Basic, Equality  # noqa: E402

BOXED = (LatexExtractionConfig(boxed_match_priority=0),)
ANYWHERE = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

RELATIVE = 1e-5
"""How far apart numbers may be that math-verify calls equal: it rounds at the sixth decimal, where 1e-19 is 0."""


def equal(answer: str, gold: str) -> bool | None:
    """Whether `answer` is `gold`, both LaTeX or plain expressions. None where `answer` cannot be read."""
    return _same(_parsed(gold), parse(_boxed(answer), list(BOXED), parsing_timeout=None))


def found_equal(text: str, gold: str) -> tuple[bool | None, str | None]:
    """The same for what math-verify finds in a whole response, as the paper's verifier reads it (the last box, formula
    or number), and what that is."""
    found = parse(text, list(ANYWHERE), parsing_timeout=None)
    return _same(_parsed(gold), found), str(found[-1])[:200] if found else None


def _same(gold: list[Any], found: list[Any]) -> bool | None:
    if not found:
        return None
    if isinstance(found[0], Equality) and not found[0].free_symbols and not isinstance(gold[0], Equality):
        return all(_same(gold, [side]) for side in found[0].args)  # 4 = 5 is not 5, though 5 = 10 / 2 is
    return verify(gold, found, timeout_seconds=None, allow_set_relation_comp=True) and not _far_apart(gold[0], found[0])


def _far_apart(one: Any, other: Any) -> bool:
    if not (isinstance(one, Basic) and isinstance(other, Basic) and one.is_number and other.is_number):
        return False
    try:
        a, b = complex(one), complex(other)
    except (TypeError, ValueError, OverflowError):  # percentages are left unevaluated, infinities have no value
        return False
    # 50% is 50 and one half: math-verify lets both pass
    return all(abs(a - b * scale) > RELATIVE * max(abs(a), abs(b * scale)) for scale in (1, 100, 1 / 100))


@lru_cache(maxsize=4096)
def _parsed(gold: str) -> list[Any]:
    found: list[Any] = parse(_boxed(gold), list(BOXED), parsing_timeout=None)
    return found


def _boxed(expression: str) -> str:
    return f"\\boxed{{{expression}}}"  # parsed bare, a tenth of MATH's gold answers are not equal to themselves
