"""What can be told of two answers without algebra: the same spelling, the same number, the same words.

Left out on purpose: everything uncertain. `agree` says None there, and algebra decides.
"""

import re
from fractions import Fraction

_WRAPPERS = r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mbox|operatorname)\s*"
_SPACES = re.compile(r"\\[,;:!> ]|~|\\q?quad\b|\s+")
_SIGNED = r"[+-]?"
_PLAIN = re.compile(rf"{_SIGNED}(?:\d{{1,3}}(?:,\d{{3}})+|\d+)?(?:\.\d+)?")
_FRACTION = re.compile(rf"({_SIGNED})(\d*)\\frac\{{(\d+)\}}\{{(\d+)\}}|({_SIGNED})()(\d+)/(\d+)")
_SCIENTIFIC = re.compile(
    rf"({_SIGNED}\d+(?:\.\d+)?)(?:e|(?:\\times|\\cdot|\*|x)10\^)\{{?({_SIGNED}\d{{1,3}})\}}?", re.I
)
_BASED = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")

NEAR = Fraction(1, 10**5)
"""Numbers this close, relatively, may be roundings of each other: algebra decides."""


def agree(answer: str, gold: str) -> bool | None:
    """Whether two answers are the same: True or False where it is certain, else None."""
    one, other = normal(answer), normal(gold)
    if not one or not other:
        return False
    if one == other:
        return True
    based = _BASED.fullmatch(other)
    if based:
        same = _BASED.fullmatch(one)
        return based[1] == one if same is None else same.groups() == based.groups()
    if (words := _words(gold)) is not None:
        return words == (_words(answer) or _letters(one))
    if "%" in answer or "%" in gold:
        return None
    a, b = number(answer), number(gold)
    if a is None or b is None:
        return None
    if a == b:
        return True
    return None if abs(a - b) <= NEAR * max(abs(a), abs(b)) else False


def normal(answer: str) -> str:
    """One spelling for what is spelt differently: spaces, \\dfrac, \\left, dollars, units after a number, thousands. A
    plain number becomes its shortest form, 1,000.50 -> 1000.5."""
    value = number(answer) if len(answer) < 200 else None
    if value is not None:
        return _shortest(value) + ("%" if "%" in answer else "")
    return _squeezed(answer)


def number(answer: str) -> Fraction | None:
    """The exact number that an answer is: integers, decimals, simple and mixed fractions, scientific notation, with a
    unit behind it or a dollar before it. None for all else."""
    text = _squeezed(_without_unit(answer))
    if len(text) > 60:
        return None
    if (found := _FRACTION.fullmatch(text)) is not None:
        sign, whole, over, under = found.groups()[:4] if found[4] else found.groups()[4:]
        if int(under) == 0:
            return None
        value = int(whole or 0) + Fraction(int(over), int(under))
        return -value if sign == "-" else value
    if (found := _SCIENTIFIC.fullmatch(text)) is not None:
        return Fraction(found[1]) * Fraction(10) ** int(found[2])
    text = text.removesuffix("%")
    return Fraction(text.replace(",", "")) if re.search(r"\d", text) and _PLAIN.fullmatch(text) else None


def _shortest(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    tens = value.denominator
    while tens % 10 == 0 or tens % 5 == 0 or tens % 2 == 0:
        tens //= 10 if tens % 10 == 0 else 5 if tens % 5 == 0 else 2
    if tens != 1 or value.denominator > 10**40:
        return f"{value.numerator}/{value.denominator}"
    places = next(p for p in range(150) if 10**p % value.denominator == 0)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + f"{digits[:-places]}.{digits[-places:]}"


def _squeezed(answer: str) -> str:
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]|\\left|\\right|\\big[lr]?|\\displaystyle|\\\$|\$", "", answer)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("{,}", ",").replace("\\%", "%")
    text = re.sub(rf"{_WRAPPERS}\{{([^{{}}]*)\}}", r"\1", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree", "", text)
    text = _SPACES.sub("", text).strip().rstrip(".")
    choice = re.fullmatch(r"\(([A-Za-z])\)", text)
    return choice[1] if choice else text.removeprefix("+")


def _without_unit(answer: str) -> str:
    """5 \\mathrm{~cm}^2 -> 5; 10 meters -> 10. Single letters stay: they may be variables."""
    power = r"(?:\s*\^\s*\{?-?\d\}?)?"
    text = re.sub(rf"(?<=[\d}}])(?:\s|~|\\[,;! ])*{_WRAPPERS}\{{[^{{}}\d]*\}}{power}\s*\.?\s*$", "", answer)
    return re.sub(rf"(?<=\d)(?:\s|~)+[A-Za-z]{{2,}}(?:[ /]+[A-Za-z]+)*{power}\s*\.?\s*$", "", text)


def _words(answer: str) -> str | None:
    """The words of an answer that is words and nothing else: all of it in \\text{...}."""
    found = re.fullmatch(rf"\$?\s*{_WRAPPERS}\{{([^{{}}]*)\}}\s*\.?\$?", answer.strip())
    return _letters(found[1]) if found and re.search(r"[^\W\d_]", found[1]) else None


def _letters(text: str) -> str:
    return re.sub(r"[\s.()\\~]+", "", text).casefold()
