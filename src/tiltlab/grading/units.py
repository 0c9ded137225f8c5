"""What may stand behind a number, or before it, without changing it: units, currencies, things that are counted; and
scale words, which multiply it.

A list of our own: single letters and short words are variables as often as units, and a general reader of units takes
`4 ab` for attobarns, `2 pi` for two pis and `3 e` for a charge. What is on no list here is left unread, and the answer
is no number then.

Left out on purpose: physics. Units that convert into each other are converted (5 cm is 50 mm); others are not compared.
"""

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of measurement.

    kind: of quantity, such as "length" or "length time^-1"; "" is compared with nothing.
    size: in the base unit of that kind, exact.
    """

    kind: str
    size: Fraction


NONE = Unit("", Fraction(1))

# fmt: off
SCALES = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7,
}
# fmt: on

_TABLE = """
length   1 m meter meters metre metres, 0.01 cm centimeter centimeters centimetre centimetres, 0.1 dm
length   0.001 mm millimeter millimeters millimetre millimetres, 1000 km kilometer kilometers kilometre kilometres
length   1e-6 um μm micrometers microns, 1e-9 nm nanometers, 0.0254 in inch inches, 0.3048 ft foot feet
length   0.9144 yd yds yard yards, 1609.344 mi mile miles
time     1 s sec secs second seconds, 60 min mins minute minutes, 3600 h hr hrs hour hours, 86400 day days
time     604800 wk wks week weeks, 0.001 ms millisecond milliseconds, 1e-6 μs microseconds, 1e-9 ns nanoseconds
months   1 month months, 12 yr yrs year years, 120 decade decades, 1200 century centuries
mass     1 g gm gram grams, 1000 kg kgs kilogram kilograms, 0.001 mg milligram milligrams, 1000000 tonne tonnes
mass     453.59237 lb lbs, 28.349523125 oz ounce ounces
volume   1 L liter liters litre litres, 0.001 mL ml cc milliliter milliliters millilitres
volume   3.785411784 gal gallon gallons, 0.946352946 qt quart quarts, 0.473176473 pint pints, 0.2365882365 cup cups
dollars  1 dollar dollars buck bucks USD, 0.01 cent cents \\textcent
force    1 N newton newtons, 1000 kN
energy   1 J joule joules, 1000 kJ, 1e6 MJ, 3600000 kWh
power    1 W watt watts, 1000 kW kilowatts, 1e6 MW
cycles   1 Hz hertz, 1000 kHz, 1e6 MHz, 1e9 GHz
pressure 1 Pa pascal pascals, 1000 kPa, 1e6 MPa, 101325 atm
-        1 mph kph kmph kmh rpm mpg K kelvin V volt volts mV A amp amps ampere amperes mA C coulomb coulombs ohm ohms
-        1 mol mole moles M eV keV MeV GeV erg ergs dyne dynes T tesla gauss rad radian radians deg degree degrees
-        1 arcsec arcmin arcseconds arcminutes parsec parsecs kpc Mpc pixels bit bits byte bytes KB MB GB TB dB
-        1 acre acres hectare hectares ton tons pound pounds stone tsp teaspoon teaspoons tbsp tablespoon tablespoons
-        1 unit units pt pts point points Celsius Fahrenheit celsius fahrenheit F cal kcal calorie calories
-        1 \\AA Å angstrom angstroms euro euros yen rupee rupees pence yuan peso pesos ruble rubles francs won baht
"""

_UNITS = {
    name: Unit(kind.strip("-"), Fraction(size))
    for kind, sizes in (line.split(None, 1) for line in _TABLE.strip().splitlines())
    for size, *names in (entry.split() for entry in sizes.split(","))
    for name in names
}

BARE_LETTERS = "msghLNJW"
"""Single letters that are units without \\text{}, behind a space: 3 L."""

_POWERS = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu.": 3}
_BEFORE = re.compile(
    r"(?:\\\$|US\$|USD|EUR|GBP|INR|CAD|AUD|CNY|RMB|JPY|CHF|Rs\.?|[€£₹¥₩₽₺฿₫]|\\(?:pounds|euro|yen|textsterling|texteuro))"
    r"(?![a-zA-Z])\s*"
)
_ONE = re.compile(
    r"(?P<power>(?:square|sq\.?|cubic|cu\.)\s+)?"
    r"(?:(?P<circ>\^\\circ\s*[CFK]?(?![a-zA-Z]))|\\unit\{(?P<letter>[A-Za-z])\}|(?P<name>\\textcent|\\AA|[A-Za-zμÅ]+)|(?P<sign>[€£₹¥₩₽₺฿₫]|\\\$))"
    r"(?:\s*\^\s*\{?\s*(?P<to>-?\d)\s*\}?|(?P<raised>(?<!circ)(?<!circ )[23])(?![\d.]))?"
)
_JOIN = re.compile(r"\s*(?P<over>/|\bper\b|\ba\b(?=\s+\w))\s*|\s*(?:\\cdot|\*|-)\s*|\s+")


def unquoted(text: str) -> str:
    """Without the quotes of words that stood as text; a single letter that did is marked, for it may be a unit."""
    return re.sub(r'"\s*([A-Za-z])\s*"', r"\\unit{\1}", text).replace('"', " ").strip()


def currency_before(text: str) -> tuple[Unit | None, str]:
    """The currency that a text begins with, and the rest; None where it begins with none."""
    match = _BEFORE.match(text)
    if match is None:
        return None, text
    return _UNITS["USD"] if match[0].strip() in ("\\$", "US$", "USD") else NONE, text[match.end() :]


def unit_before(text: str, spaced: bool) -> tuple[Unit | None, str]:
    """The unit that a text begins with, a product or quotient of named ones, and the rest; None where there is none.

    spaced: a space stands before the text, so that a single letter may be a unit.
    """
    powers: Counter[str] = Counter()
    size, end, sign, known = Fraction(1), 0, 1, True
    while (match := _ONE.match(text, end)) and (unit := _one(match)) is not None:
        if end == 0 and not _may_stand(match, spaced):
            break
        power = sign * int(match["to"] or match["raised"] or _POWERS.get((match["power"] or "").strip(), 1))
        known = known and unit.kind != ""
        powers[unit.kind] += power
        size *= unit.size**power
        end = match.end()
        joined = _JOIN.match(text, end)
        if joined is None or not (after := _ONE.match(text, joined.end())) or _one(after) is None:
            break
        sign = -1 if joined["over"] else sign if joined[0].strip() else 1
        end = joined.end()
    if end == 0:
        return None, text
    kind = " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items()) if power)
    return (Unit(kind, size) if known else NONE), text[end:]


def _may_stand(match: re.Match[str], spaced: bool) -> bool:
    """Whether the first unit may be one: a bare letter needs a space before it (3 m), or a quotient (5m/s)."""
    name = match["name"]
    if name is None or len(name) > 1 or name == "L":
        return True
    return (spaced and name in BARE_LETTERS) or re.match(r"\s*/", match.string[match.end() :]) is not None


def _one(match: re.Match[str]) -> Unit | None:
    if match["circ"] or match["sign"]:
        return NONE
    name = match["letter"] or match["name"]
    inches = name == "in" and re.match(r"\s+[a-z]", match.string[match.end() :])  # 72 in total
    return None if inches else _UNITS.get(name)


_CHANGE = """
    or and plus minus times over divide divided multiplied modulo mod choose factorial squared cubed root roots power
    powers more less fewer greater larger smaller higher lower least most than above below under up between to not no
    none except without unless but if when where twice double triple fold percent out remainder point equals equal is
    are was were mean half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh
    sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths dozen dozens hundred
    hundreds thousand thousands million millions billion billions trillion trillions score gross zero one two three
    four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety pi alpha
    beta gamma delta theta lambda sigma omega phi sin cos tan cot sec csc log ln exp sqrt infinity infinitely negative
    positive does maybe perhaps probably either neither both versus vs approximately about roughly almost nearly wrong
    incorrect undefined false untrue else alternatively invalid impossible never nothing nobody nowhere factorials
    percentage percentages percents
"""
_CHANGES = frozenset(_CHANGE.split())
_SCALED = re.compile(
    r"[a-z]+(?:illion|illionth|[a-z]teenth|tieth)s?|(?:eleven|twelf)ths?|(?:ten|eleven|twelve|[a-z]+teen)s"
)
_IRREGULAR = "people men women children feet teeth mice geese fish sheep deer dice oxen"
_PLURALS = frozenset(_IRREGULAR.split())
_TAIL = (
    "of per in for each from left remaining total altogether away long tall wide deep high old later ago every apiece"
)
_TAILS = frozenset(_TAIL.split())


def changes_nothing(remark: str) -> bool:
    """Whether a remark in words leaves the number before it as it is.

    "by symmetry" and "in total" do; what has "minus" or "elevenths" in it does not.
    """
    words = re.findall(r"[a-z]+", remark.lower())
    return not _CHANGES.intersection(words) and not any(map(_SCALED.fullmatch, words))


def things_counted(text: str, one: bool) -> bool:
    """Whether a text only says what was counted: "apples", "red apples per day", "of the cake", "in total".

    one: what is counted may be one thing, or a part of one ("mile").
    """
    words = text.lower().replace("-", " ").split()
    if not words or len(words) > 8 or not all(re.fullmatch(r"[a-z][a-z&]*(?:'s)?|\(s\)", word) for word in words):
        return False
    if not changes_nothing(text) or any(
        re.fullmatch("[b-z]", word) and (i < 2 or words[i - 1] not in _TAILS) for i, word in enumerate(words)
    ):
        return False  # 5 of x; but values of n
    if words[0] in _TAILS:
        return words[-1] not in ("of", "per", "for", "from", "every") and (
            len(words) > 1 or words[0] not in ("in", "each")
        )
    heads = [i for i, word in enumerate(words[:4]) if _is_plural(word) or (one and len(word) > 3)]
    return bool(heads) and len(words[0]) > 2


def _is_plural(word: str) -> bool:
    return word in _PLURALS or (len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")))
