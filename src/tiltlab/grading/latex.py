"""An answer in its plain spelling as LaTeX that a parser of formulas can read.

Left out on purpose: parsing (formula.py here, math-verify in equality.py).
"""

import re
from functools import lru_cache

from tiltlab.grading.units import unit_before, unquoted

_NAMES = """
    arcsin arccos arctan arccot sinh cosh tanh coth sin cos tan cot sec csc log ln exp det gcd lcm min max lim arg deg
    ker dim alpha beta gamma delta epsilon theta lambda mu pi rho sigma tau phi omega infty
"""
_BARE_NAMES = re.compile(rf"(?<![a-zA-Z\\{{])(?:{'|'.join(_NAMES.split())})(?![a-zA-Z}}])")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_COMMAND = re.compile(r"\\(?:begin|end|math[a-z]+)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_CAPITAL = re.compile(
    rf"{_COMMAND.pattern}|_\{{[^{{}}]*\}}|_[A-Z]"  # what has no capital variable in it
    r"|(?P<capital>[A-Z])(?:_(?:\{(?P<group>\w+)\}|(?P<sign>\w)))?(?!_)"
)
_MIXED = re.compile(r"\s*(-?\d{1,20})\s*\\frac\{\s*(\d{1,20})\s*\}\{\s*(\d{1,20})\s*\}\s*")
_WITH_UNIT = re.compile(
    r"(.*[\d}\])]|.*\\[a-z]+)\s*((?:\"[^\"]*\"|\b(?:cm|mm|km|ft|square|cubic|units?|inches|meters|feet)\b).*)"
)


@lru_cache(maxsize=8192)
def for_reading(text: str) -> str:
    """An answer in its plain spelling as LaTeX for a parser.

    Without unit and quotes; names of functions with their backslash, degrees as radians where an angle is asked for,
    odd roots of negative numbers as negative numbers.
    """
    text = without_unit(text)
    if (mixed := _MIXED.fullmatch(text)) and int(mixed[2]) < int(mixed[3]):
        text = rf"{mixed[1]}+\frac{{{mixed[2]}}}{{{mixed[3]}}}"
        text = f"-({text[1:]})" if text.startswith("-") else text
    if _TRIGONOMETRIC.search(text):
        text = re.sub(r"(\d+(?:\.\d+)?|\\?[a-zA-Z]+)\s*\^\\circ", r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = re.sub(r"\\sqrt\[([3579])\]\{\s*-\s*([^{}+\-]*)\}", r"(-\\sqrt[\1]{\2})", text)
    return _BARE_NAMES.sub(r"\\\g<0> ", text.replace("^\\circ", "").replace('"', " "))


def told_apart(one: str, other: str) -> tuple[str, str]:
    """Two formulas for algebra, which reads T as t: where both are in use, the capital one is T_{up}."""
    small = letters_of(f"{one} {other}")

    def renamed(match: re.Match[str]) -> str:
        letter = match["capital"]
        if letter is None or letter.lower() not in small:
            return match[0]
        return f"{letter}_{{up{match['group'] or match['sign'] or ''}}}"

    return _CAPITAL.sub(renamed, one), _CAPITAL.sub(renamed, other)


def letters_of(formula: str) -> set[str]:
    """The letters that are no command: its variables, and more."""
    return set(re.findall(r"[a-zA-Z]", _COMMAND.sub("", formula)))


def without_unit(text: str) -> str:
    """4\\pi cm^2 without its unit: one that stood as text, or has two letters or more."""
    match = _WITH_UNIT.fullmatch(text)
    if not match:
        return text
    rest = unquoted(match[2])
    unit, after = unit_before(rest, spaced=False)
    return match[1] if unit is not None and not after.strip() else text
