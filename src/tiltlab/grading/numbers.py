"""The exact number, or quantity, that an answer is: the number is read first, then what stands behind it. What is left
unread makes it no number.

Left out on purpose: expressions. 2+3, \\sqrt{2} and 5! are for algebra (equality.py).
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from tiltlab.grading.units import (
    NONE,
    SCALES,
    Unit,
    changes_nothing,
    currency_before,
    things_counted,
    unit_before,
    unquoted,
)


class Quantity(NamedTuple):
    """A number, whether a percent sign stood behind it, and its unit."""

    value: Fraction
    percent: bool = False
    unit: Unit = NONE


_INT = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|\d+)"
_DEC = rf"(?:{_INT}(?:\.\d+|\.(?=\s*/))?|\.\d+)"
_TEN = r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*"
_EXPONENT = r"(?:\{\s*([+-]?\d{1,4})\s*\}|([+-]?\d{1,4}))(?!\d)"

_RECURRING = re.compile(
    r"(\d*)\.(\d*)(?:\{?\\(?:overline|bar)\s*\{?\s*(\d+)\s*\}{0,2}|\((\d+)\)|\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?)"
)
_GOES_ON = re.compile(r"(\d*)\.(\d+?)\s*\.\.\.")
_MIXED = re.compile(
    rf"({_INT})\s*(?:\s\s*(?:and\s+)?|-\s*|\+\s*)?(?:\\frac\{{\s*(\d+)\s*\}}\{{\s*(\d+)\s*\}}|(?<=[\s\-+])(\d+)\s*/\s*(\d+)(?![\d.]))"
)
_FRACTION = re.compile(
    rf"\\frac\{{\s*([+-]?)\s*({_DEC})\s*\}}\{{\s*([+-]?)\s*({_DEC})\s*\}}|()({_DEC})\s*/\s*(-?)({_DEC})(?!\s*/)"
)
_SCIENTIFIC = re.compile(
    rf"({_DEC})(?:[eE]([+-]?\d{{1,4}})(?![\d.])|{_TEN}{_EXPONENT})|()10\s*(?:\^|\*\*)\s*{_EXPONENT}"
)
_DECIMAL = re.compile(_DEC)


@lru_cache(maxsize=8192)
def quantity(text: str) -> Quantity | None:
    """The quantity that an answer in its plain spelling is; None where it is none, or where something is left
    unread."""
    if len(text) > 120 or re.search(r"\d{60}", text) or not re.search(r"\d|[a-z]{3}", text, re.IGNORECASE):
        return None
    text = unquoted(text)
    text = re.sub(r"^\((?=[^()]*\)$)(.*)\)$", r"\1", text).strip()
    sign, text = _sign(text)
    money, text = currency_before(text)
    if money is not None:
        inner, text = _sign(text)
        sign *= inner
    value, rest = leading_number(text)
    if value is None:
        return None
    found = _with_rest(value, rest, money)
    return found._replace(value=sign * found.value) if found else None


def number(text: str) -> Fraction | None:
    """The value of a quantity in its plain spelling, whatever its unit; None where it is none."""
    found = quantity(text)
    return found.value if found else None


def leading_number(text: str) -> tuple[Fraction | None, str]:
    """The unsigned number that a text begins with, and the rest; None where it begins with none."""
    for read in (_recurring, _mixed, _fraction, _scientific, _decimal, _in_words):
        if (found := read(text)) is not None:
            return found[0], text[found[1] :]
    return None, text


def _sign(text: str) -> tuple[int, str]:
    found = re.match(r"([+-])\s*(?=[\d.\\€£₹¥]|[A-Z])", text)
    return (-1 if found and found[1] == "-" else 1), text[found.end() :] if found else text


def _with_rest(value: Fraction, rest: str, money: Unit | None) -> Quantity | None:
    """The quantity of a number and all that stands behind it."""
    value, rest = _scaled(value, rest)
    if percent := re.match(r"\s*(?:%|percent\b|per cent\b|pct\b)", rest):
        rest = rest[percent.end() :]
        return Quantity(value, True) if _says_nothing(rest, value) else None
    unit, after = unit_before(rest.lstrip(), rest[:1] == " ")
    if unit is None:
        unit, after = money or NONE, rest
    elif (compound := _compound(value, unit, after)) is not None:
        return Quantity(compound, False, unit)
    return Quantity(value, False, unit) if _says_nothing(after, value) else None


def _scaled(value: Fraction, rest: str) -> tuple[Fraction, str]:
    names = "|".join(SCALES)
    while found := re.match(rf"\s*({names})\b\s*(?:of\s+)?", rest, re.IGNORECASE):
        value *= SCALES[found[1].lower()]
        rest = " " + rest[found.end() :] if rest[found.end() :] else ""
    return value, rest


def _compound(value: Fraction, unit: Unit, rest: str) -> Fraction | None:
    """2 hours 30 minutes, in hours: a smaller unit of the same kind stands behind the first."""
    found = re.match(r"\s*(?:,|and\b|,\s*and\b)?\s*(?=\d|\\frac)", rest)
    if not found or not unit.kind:
        return None
    more, after = leading_number(rest[found.end() :])
    smaller, end = unit_before(after.lstrip(), after[:1] == " ")
    if more is None or smaller is None or smaller.kind != unit.kind or smaller.size >= unit.size:
        return None
    total = value + more * smaller.size / unit.size
    if not end.strip():
        return total
    return _compound(total, Unit(unit.kind, unit.size), end)


def _says_nothing(rest: str, value: Fraction) -> bool:
    """Whether what is left changes nothing: nothing, things that are counted, a remark in words."""
    rest = rest.strip(" .")
    if remark := re.fullmatch(r"(.*?)\s*\(([a-zA-Z ,.\-]+)\)", rest):
        said = _in_words(remark[2].strip())
        if not (changes_nothing(remark[2]) if said is None else said == (value, len(remark[2].strip()))):
            return False
        rest = remark[1].strip()
    rest = re.sub(r"^,\s*(?=in total|total|altogether|in all)", "", rest)
    return not rest or things_counted(rest, abs(value) <= 1)


def _recurring(text: str) -> tuple[Fraction, int] | None:
    found = _RECURRING.match(text)
    if found:
        whole, fixed = found[1], found[2]
        again = found[3] or found[4] or f"{found[5]}{found[6] or ''}{found[7] or ''}"
        return _repeating(whole, fixed, again), found.end()
    found = _GOES_ON.match(text)
    if found:
        repeat = re.fullmatch(r"(\d*?)(\d{1,8}?)\2+(?!\2)", found[2])
        return (_repeating(found[1], repeat[1], repeat[2]), found.end()) if repeat else None
    return None


def _repeating(whole: str, fixed: str, again: str) -> Fraction:
    nines = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
    return Fraction(f"{whole or 0}.{fixed or 0}") + nines


def _mixed(text: str) -> tuple[Fraction, int] | None:
    found = _MIXED.match(text)
    if not found:
        return None
    over, under = int(found[2] or found[4]), int(found[3] or found[5])
    whole = int(found[1].replace(",", ""))
    if not (whole and over < under):
        return None  # 2\frac{5}{3} may be a product, 0 and 5/6 is two numbers
    joined = text[found.end(1) : found.start(2) if found[2] else found.start(4)]
    if "-" in joined or "+" in joined:
        return None
    return whole + Fraction(over, under), found.end()


def _fraction(text: str) -> tuple[Fraction, int] | None:
    found = _FRACTION.match(text)
    if not found:
        return None
    above, over, below, under = found.groups()[:4] if found[2] else found.groups()[4:]
    if not _value(under):
        return None
    sign = -1 if (above == "-") != (below == "-") else 1
    return sign * _value(over) / _value(under), found.end()


def _scientific(text: str) -> tuple[Fraction, int] | None:
    found = _SCIENTIFIC.match(text)
    if not found:
        return None
    mantissa = _value(found[1]) if found[1] else Fraction(1)
    exponent = next(int(group) for group in (found[2], found[3], found[4], *found.groups()[5:]) if group)
    return mantissa * Fraction(10) ** exponent, found.end()


def _decimal(text: str) -> tuple[Fraction, int] | None:
    found = _DECIMAL.match(text)
    return (_value(found[0]), found.end()) if found else None


def _value(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


_SMALL = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NAMED = {name: i for i, name in enumerate(_SMALL.split())} | {name: 10 * i for i, name in enumerate(_TENS.split(), 2)}
_WORD = re.compile(rf"(?:{'|'.join(sorted([*_NAMED, *SCALES, 'and'], key=len, reverse=True))})\b", re.I)


def _in_words(text: str) -> tuple[Fraction, int] | None:
    """Twenty-one, two hundred and five; not one two, five twenty."""
    total = part = end = 0
    room, largest = 100, 10**15  # what the next word must be smaller than: a number, and a scale word
    seen = False
    while found := _WORD.match(text, end):
        word = found[0].lower()
        if word in _NAMED:
            if _NAMED[word] >= room:
                return None
            part += _NAMED[word]
            room = 10 if _NAMED[word] >= 20 else 0
        elif word in SCALES:
            if SCALES[word] >= largest:
                return None
            part = max(part, 1) * SCALES[word]
            room = 100
            if SCALES[word] >= 1000:
                total, part, largest = total + part, 0, SCALES[word]
        elif not seen:
            return None  # and five
        seen = True
        after = re.match(r"[\s-]+", text[found.end() :])
        end = found.end() + (after.end() if after else 0)
        if not after:
            break
    return (Fraction(total + part), len(text[:end].rstrip(" -"))) if seen else None


def shortest(value: Fraction) -> str:
    """The shortest exact spelling: an integer, a decimal, or a fraction."""
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
