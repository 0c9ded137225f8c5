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
    """A number with its unit.

    value: exact, in that unit; 50% is 50.
    percent: whether a percent sign or word stood behind it.
    unit: `NONE` where there was none.
    """

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
    """The quantity that an answer is; None where it is none, or where something is left unread.

    text: in its plain spelling (`spelling.plain`).
    """
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
    amount = _with_rest(value, rest, money)
    return amount._replace(value=sign * amount.value) if amount else None


def leading_number(text: str) -> tuple[Fraction | None, str]:
    """The unsigned number that a text begins with, and the rest; None where it begins with none."""
    for read in (_recurring, _mixed, _fraction, _scientific, _decimal, _in_words):
        if (leading := read(text)) is not None:
            value, end = leading
            return value, text[end:]
    return None, text


def _sign(text: str) -> tuple[int, str]:
    match = re.match(r"([+-])\s*(?=[\d.\\€£₹¥]|[A-Z])", text)
    return (-1 if match and match[1] == "-" else 1), text[match.end() :] if match else text


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
    while match := re.match(rf"\s*({names})\b\s*(?:of\s+)?", rest, re.IGNORECASE):
        value *= SCALES[match[1].lower()]
        rest = " " + rest[match.end() :] if rest[match.end() :] else ""
    return value, rest


def _compound(value: Fraction, unit: Unit, rest: str) -> Fraction | None:
    """2 hours 30 minutes, in hours: a smaller unit of the same kind stands behind the first."""
    match = re.match(r"\s*(?:,|and\b|,\s*and\b)?\s*(?=\d|\\frac)", rest)
    if not match or not unit.kind:
        return None
    more, after = leading_number(rest[match.end() :])
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
    match = _RECURRING.match(text)
    if match:
        whole, fixed = match[1], match[2]
        again = match[3] or match[4] or f"{match[5]}{match[6] or ''}{match[7] or ''}"
        return _repeating(whole, fixed, again), match.end()
    match = _GOES_ON.match(text)
    if match:
        repeat = re.fullmatch(r"(\d*?)(\d{1,8}?)\2+(?!\2)", match[2])
        return (_repeating(match[1], repeat[1], repeat[2]), match.end()) if repeat else None
    return None


def _repeating(whole: str, fixed: str, again: str) -> Fraction:
    nines = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
    return Fraction(f"{whole or 0}.{fixed or 0}") + nines


def _mixed(text: str) -> tuple[Fraction, int] | None:
    match = _MIXED.match(text)
    if not match:
        return None
    over, under = int(match[2] or match[4]), int(match[3] or match[5])
    whole = int(match[1].replace(",", ""))
    if not (whole and over < under):
        return None  # 2\frac{5}{3} may be a product, 0 and 5/6 is two numbers
    joined = text[match.end(1) : match.start(2) if match[2] else match.start(4)]
    if "-" in joined or "+" in joined:
        return None
    return whole + Fraction(over, under), match.end()


def _fraction(text: str) -> tuple[Fraction, int] | None:
    match = _FRACTION.match(text)
    if not match:
        return None
    above, over, below, under = match.groups()[:4] if match[2] else match.groups()[4:]
    if not _value(under):
        return None
    sign = -1 if (above == "-") != (below == "-") else 1
    return sign * _value(over) / _value(under), match.end()


def _scientific(text: str) -> tuple[Fraction, int] | None:
    match = _SCIENTIFIC.match(text)
    if not match:
        return None
    mantissa = _value(match[1]) if match[1] else Fraction(1)
    exponent = next(int(group) for group in (match[2], match[3], match[4], *match.groups()[5:]) if group)
    return mantissa * Fraction(10) ** exponent, match.end()


def _decimal(text: str) -> tuple[Fraction, int] | None:
    match = _DECIMAL.match(text)
    return (_value(match[0]), match.end()) if match else None


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
    while match := _WORD.match(text, end):
        word = match[0].lower()
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
        after = re.match(r"[\s-]+", text[match.end() :])
        end = match.end() + (after.end() if after else 0)
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
