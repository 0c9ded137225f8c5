"""Whether two expressions are equal as mathematics, by math-verify. Runs in workers, for it may hang.

Left out on purpose: reading answers out of responses, and all that is decided without algebra (maths.py).
"""

import logging
from functools import lru_cache
from typing import Any

from math_verify import (
    ExprExtractionConfig,
    LatexExtractionConfig,
    LatexNormalizationConfig,
    parse,
    verify,
)
from sympy import Basic, Equality, Expr, I, Max

from tiltlab.grading.formula import same_to_fifty_digits

# units: its list holds `t`, `h` and `c`, so that 4t would be 4; ours are gone by now (units.py)
_SPELLING = LatexNormalizationConfig(units=False, malformed_operators=True, nits=True)
BOXED = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=_SPELLING),)
ANYWHERE = (*BOXED, ExprExtractionConfig())

RELATIVE = 1e-5
"""How far apart numbers may be that math-verify calls equal: it rounds at the sixth decimal, where 1e-19 is 0."""


def silence() -> None:
    """Turn off math-verify's warnings, in a worker: at every call it says that its own time limits are off, where the
    worker's deadline is the limit."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(answer: str, gold: str) -> bool | None:
    """Whether `answer` is `gold`, both LaTeX or plain expressions. None where `answer` cannot be read."""
    verdict = _same(_parsed(gold), _imaginary(_in_box(answer)))
    return verdict or (True if same_to_fifty_digits(answer, gold) else verdict)


def is_formula(text: str) -> bool:
    """Whether algebra can read a text: as an expression, or as a matrix."""
    return any(isinstance(part, Basic) or hasattr(part, "shape") for part in _parsed(text))


def equal_in_text(text: str, gold: str) -> tuple[bool | None, str | None]:
    """Whether what math-verify finds in a whole response is `gold`, and what that is, in at most 200 characters.

    It reads the last box, formula or number, as the paper's verifier does. None, None where there is none.
    """
    answer = parse(text, list(ANYWHERE), parsing_timeout=None)
    return _same(_parsed(gold), answer), str(answer[-1])[:200] if answer else None


def _same(gold: list[Any], answer: list[Any]) -> bool | None:
    """Of what was parsed: expressions first, then the text that they were read from. None where there is no answer."""
    if not answer:
        return None
    read = answer[0]
    if isinstance(read, Equality) and not read.free_symbols and not isinstance(gold[0], Equality):
        return all(_same(gold, [side]) for side in read.args)  # 4 = 5 is not 5, though 5 = 10 / 2 is
    return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True) and not _far_apart(gold[0], read)


def _far_apart(one: Any, other: Any) -> bool:
    """Whether two numbers differ by more than rounding. In Sympy's floats, whose exponents have no end: 1/300! is not
    0."""
    if not (isinstance(one, Basic) and isinstance(other, Basic) and one.is_number and other.is_number):
        return False
    try:
        a, b = one.evalf(30), other.evalf(30)
        if not (a.is_finite and b.is_finite):
            return False
        return bool(abs(a - b) > RELATIVE * Max(abs(a), abs(b)))
    except (TypeError, ValueError, OverflowError, AttributeError):  # what is left unevaluated has no size
        return False


def _imaginary(parsed: list[Any]) -> list[Any]:
    """With i as the imaginary unit, which math-verify reads as a variable."""
    return [
        value.subs({symbol: I for symbol in value.free_symbols if symbol.name == "i"})
        if isinstance(value, Expr)
        else value
        for value in parsed
    ]


@lru_cache(maxsize=4096)
def _parsed(gold: str) -> list[Any]:
    return _imaginary(_in_box(gold))


def _in_box(expression: str) -> list[Any]:
    """What the whole of an expression says. Parsed bare, a tenth of MATH's gold answers are not equal to themselves;
    without "first_match", what cannot be read is searched for a fraction that can, and \\ne \\frac12 is one half."""
    boxed = f"\\boxed{{{expression}}}"
    return list(parse(boxed, list(BOXED), extraction_mode="first_match", parsing_timeout=None))
