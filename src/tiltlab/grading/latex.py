"""An answer in its plain spelling as LaTeX that a parser of formulas can read.

Left out on purpose: parsing (formula.py here, math-verify in equality.py).
"""

import re
from functools import lru_cache

from tiltlab.grading.units import unit_before

_NAMES = """
    arcsin arccos arctan arccot sinh cosh tanh coth sin cos tan cot sec csc log ln exp det gcd lcm min max lim arg deg
    ker dim alpha beta gamma delta epsilon theta lambda mu pi rho sigma tau phi omega infty
"""
_BARE_NAMES = re.compile(rf"(?<![a-zA-Z\\{{])(?:{'|'.join(_NAMES.split())})(?![a-zA-Z}}])")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_WITH_UNIT = re.compile(
    r"(.*[\d}\])]|.*\\[a-z]+)\s*((?:\"[^\"]*\"|\b(?:cm|mm|km|ft|square|cubic|units?|inches|meters|feet)\b).*)"
)


@lru_cache(maxsize=8192)
def for_reading(text: str) -> str:
    """Without unit and quotes; names of functions with their backslash, degrees as radians where an angle is asked for,
    odd roots of negative numbers as negative numbers."""
    text = without_unit(text)
    if _TRIGONOMETRIC.search(text):
        text = re.sub(r"(\d+(?:\.\d+)?|\\?[a-zA-Z]+)\s*\^\\circ", r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = re.sub(r"\\sqrt\[([3579])\]\{\s*-\s*([^{}+\-]*)\}", r"(-\\sqrt[\1]{\2})", text)
    return _BARE_NAMES.sub(r"\\\g<0> ", text.replace("^\\circ", "").replace('"', " "))


def without_unit(text: str) -> str:
    """4\\pi cm^2 without its unit: one that stood as text, or has two letters or more."""
    found = _WITH_UNIT.fullmatch(text)
    if not found:
        return text
    rest = re.sub(r'"\s*([A-Za-z])\s*"', r"\\unit{\1}", found[2]).replace('"', " ").strip()
    unit, after = unit_before(rest, spaced=False)
    return found[1] if unit is not None and not after.strip() else text
