"""Formulas compared by their values: two that differ at every one of several points are not equal, which costs no
algebra; two that agree to fifty digits at points all over the plane are equal, also where algebra cannot read them.

Left out on purpose: formulas that evaluator.py does not understand: algebra decides there.
"""

from functools import lru_cache

from tiltlab.grading.evaluator import Digits, Floats, NotUnderstood, Reader, tokens_of

POINTS = (0.4, 1.3, 3.7, 11.0)
"""Scales of the variables' values: where a formula's roots and logarithms must be real, they are at one of them."""

EQUAL = 1e-11
"""Relative difference of two constants that are the same."""

ENOUGH = 2
"""Points at which both formulas must have a value."""

APART = 1e-4
"""Relative difference beyond which two values are no roundings of each other."""


def differ(one: str, other: str) -> bool:
    """Whether two formulas differ for sure: both are understood, and their values are apart at every point."""
    pairs = _pairs(one, other)
    return len(pairs) >= ENOUGH and all(_apart(a, b) for a, b in pairs)


def is_constant(formula: str) -> bool:
    """Whether a formula is understood and has no variables."""
    at_points = values(formula)
    return at_points is not None and at_points[0] is not None and all(value == at_points[0] for value in at_points)


def equal_constants(one: str, other: str) -> bool:
    """Whether two formulas without variables, of ordinary size, have the same value to eleven digits."""
    if not (is_constant(one) and is_constant(other)):
        return False
    a, b = _pairs(one, other)[0]
    return 1e-6 < abs(a) < 1e6 and abs(a - b) <= EQUAL * abs(a)


def far_apart(one: str, other: str) -> bool:
    """Whether two formulas without variables differ by more than one does from the other as a rough value: 3.14 or 3
    for \\pi."""
    if not (is_constant(one) and is_constant(other)):
        return False
    a, b = _pairs(one, other)[0]
    return abs(a - b) > max(0.5, 0.1 * abs(a))


@lru_cache(maxsize=8192)
def values(formula: str) -> tuple[complex | None, ...] | None:
    """A formula's value at each of `POINTS`; None where the formula is not understood.

    A value is None where the formula has no finite one of a usual size (0, or between 1e-250 and 1e250).
    """
    try:
        tokens = tokens_of(formula)
        return tuple(_value(tokens, scale) for scale in POINTS)
    except (NotUnderstood, RecursionError):
        return None


def _value(tokens: list[str], scale: float) -> complex | None:
    try:
        value: complex = Reader(tokens, Floats(scale)).all()
    except (ArithmeticError, ValueError):
        return None
    return value if value == 0 or 1e-250 < abs(value) < 1e250 else None


def _pairs(one: str, other: str) -> list[tuple[complex, complex]]:
    """Both values at the points where both have one."""
    both = zip(values(one) or (), values(other) or (), strict=False)
    return [(a, b) for a, b in both if a is not None and b is not None]


def same_to_fifty_digits(one: str, other: str) -> bool:
    """Whether two formulas are understood and agree to fifty digits at points all over the complex plane.

    There \\sqrt{x^2} is not x. Sizes must be ordinary, so that 2^{1000} + 1 is not 2^{1000}. For workers: it imports
    mpmath.
    """
    import mpmath

    with mpmath.workdps(60):
        try:
            pairs = [
                [Reader(tokens_of(formula), Digits(mpmath.mp, turn)).all() for formula in (one, other)]
                for turn in range(4)
            ]
            return all(1e-20 < abs(a) < 1e20 and abs(a - b) <= mpmath.mpf(10) ** -50 * abs(a) for a, b in pairs)
        except (NotUnderstood, ArithmeticError, ValueError, TypeError, RecursionError):
            return False


def _apart(a: complex, b: complex) -> bool:
    return abs(a - b) > APART * max(abs(a), abs(b))
