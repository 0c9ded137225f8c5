"""What can be told of two answers without algebra: the same spelling, quantity, words, choice, numeral or list.

Each rule says True or False where it is certain, and None where it has nothing to say. What no rule decides is for
algebra (equality.py), unless there are words in it, which algebra would take for products of letters.

Left out on purpose: everything uncertain.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from tiltlab.grading.formula import differ, is_constant, values
from tiltlab.grading.labels import denies, labelled
from tiltlab.grading.latex import for_reading, letters_of, told_apart, without_unit
from tiltlab.grading.lists import items_of
from tiltlab.grading.numbers import Quantity, quantity, shortest
from tiltlab.grading.spelling import BASES, LONGEST, plain, squeezed
from tiltlab.grading.words import choice, unread_words, words_of

MOST_WORDS = 8
"""Words of a gold answer that a response may be expected to say."""

NEAR = Fraction(1, 10**5)
"""Numbers this close, relatively, may be roundings of each other: algebra decides."""


def agree(answer: str, gold: str) -> bool | None:
    """Whether two answers are the same: True or False where it is certain, else None."""
    one, other = plain(answer), plain(gold)
    if one == other:
        return bool(one)
    if max(len(one), len(other)) > LONGEST:
        return False  # past all reading, it is right to the letter only
    return _same_entry(one, other)


@lru_cache(maxsize=8192)
def normal(answer: str) -> str:
    """One spelling for equal plain answers, so that they vote together: 1,000.50 m is 1000.5, (B) is B, 2, 1 is 1,
    2."""
    if len(answer) > LONGEST:
        return answer.strip()
    text = labelled(plain(answer))[1]
    amount = quantity(text)
    if amount is not None:
        return shortest(amount.value) + "%" * amount.percent
    if (words := words_of(text)) is not None:
        return words
    chosen = choice(text)
    if chosen is not None and (chosen[2] or len(text) == 1):
        return chosen[0]
    items = items_of(text)
    if items is not None and not items.nested:
        entries = [normal(entry) for entry in items.entries]
        return items.opened + ", ".join(entries if items.ordered else sorted(entries)) + items.closed
    return squeezed(text)


def is_read(gold: str) -> bool | None:
    """Whether a gold answer is one that a response can meet in more than its own letters.

    That is a quantity, a choice, a few words, a numeral, entries, a formula. None where only algebra can say.
    """
    text = labelled(plain(gold))[1]
    words = words_of(text)
    if words is not None:
        return len(words.split()) <= MOST_WORDS
    if quantity(text) is not None or _numeral(text) is not None:
        return True
    chosen, items = choice(text), items_of(text)
    if chosen is not None and (chosen[2] or len(text) == 1):
        return True
    if items is not None:
        parts = [is_read(entry) for entry in items.entries]
        return False if False in parts else None if None in parts else True
    if not text or len(text) > LONGEST or unread_words(text):
        return False
    return True if values(for_reading(text)) is not None else None


def for_algebra(answer: str, gold: str) -> tuple[str, str]:
    """Both answers as LaTeX for algebra: without label, unit or dress."""
    _, one, other = _unlabelled(plain(answer), plain(gold))
    return told_apart(for_reading(one), for_reading(other))


def _same_entry(one: str, other: str) -> bool | None:
    """Whether two answers are the same, or two entries of lists: with or without the names that they give
    themselves."""
    together, a, b = _unlabelled(one, other)
    return _same(a, b) if together and a and b else False


def _unlabelled(one: str, other: str) -> tuple[bool, str, str]:
    """Whether the names that two answers give themselves go together (x = 5 is not y = 5), and the answers."""
    (label, a), (named, b) = labelled(one), labelled(other)
    if not (("=" in a and named) or ("=" in b and label)):
        return not label or not named or label == named or not _apart(label, named), a, b
    # an equation beside one that looked like a name, or a list of them
    return True, f"{label} = {a}" if label else a, f"{named} = {b}" if named else b


def _same(one: str, other: str) -> bool | None:
    if squeezed(one) == squeezed(other):
        return True
    for rule in _RULES:
        verdict = rule(one, other)
        if verdict is not None:
            return verdict
    if _is_no_formula(one, other):
        return False
    one, other = for_reading(one), for_reading(other)
    return False if differ(one, other) else None


def _is_no_formula(one: str, other: str) -> bool:
    """Whether algebra would misread it: words that the other has not, or numbers side by side."""
    one, other = without_unit(one), without_unit(other)
    return (
        unread_words(one) != unread_words(other)
        or _dropped(one) != _dropped(other)
        or any(re.search(r"(?<![\^_\d.])\d[\d.]* \d", text) for text in (one, other))
    )


def _dropped(text: str) -> tuple[int, bool, bool]:
    """What algebra drops: primes (y' is not y), the index of a number (0.11_2 is not 0.11), and what stands behind
    \\approx."""
    return len(re.findall(r"(?<!\d)'", text)), re.search(r"\d\s*_", text) is not None, "\\approx" in text


def _by_base(one: str, other: str) -> bool | None:
    """Numerals in a base: the same digits, in the same base where both say it; the gold answer's is known."""
    a, b = _numeral(one), _numeral(other)
    if b is not None:
        return a == b if a is not None else b[0] == squeezed(one).upper()
    if a is None:
        return None
    gold = quantity(other)
    return None if gold is None else gold.value == _value_of(*a)


_IN_WORDS = dict(zip(BASES, (*range(2, 13), 16), strict=True))


def _by_angle(one: str, other: str) -> bool | None:
    """Angles are named by their points, which algebra would multiply: ABC is CBA and not ACB."""
    a, b = (_ANGLE.fullmatch(text) for text in (one, other))
    return a[1] in (b[1], b[1][::-1]) if a and b else None


_ANGLE = re.compile(r"\\angle\s*\{?([A-Z]{3})\}?")


def _numeral(text: str) -> tuple[str, int] | None:
    text = re.sub(r'["\s{}()]', "", text)
    match = re.fullmatch(rf"([0-9A-Fa-f]+)_(?:base)?(\d+|{'|'.join(BASES)})", text)
    if not match:
        return None
    base = int(match[2]) if match[2].isdigit() else _IN_WORDS[match[2]]
    return (match[1].upper(), base) if re.search(r"\d", match[1]) or base > 10 else None


def _value_of(digits: str, base: int) -> Fraction | None:
    try:
        return Fraction(int(digits, base))
    except ValueError:  # no such digit in this base, or no such base
        return None


def _by_choice(one: str, other: str) -> bool | None:
    """The gold answer is a choice: its letter counts, or what stands behind it."""
    gold, answer = choice(other), choice(one)
    if gold is None:
        if answer is None or not answer[2] or not answer[1] or words_of(other) is not None:
            return None
        return _same(labelled(answer[1])[1], other)  # B. 12 is 12
    letter, text, marked = gold
    if answer is not None and answer[0] == letter:
        return not (text and answer[1] and _same(answer[1], text) is False)
    if answer is not None and (answer[2] or marked):
        return False
    if not marked:
        return None  # a letter alone may be a variable
    return _same(one, text) if text else None


def _by_words(one: str, other: str) -> bool | None:
    """The gold answer is words, or the answer is and says no number."""
    gold, answer = words_of(other), words_of(one)
    if gold is None and answer is None:
        return None
    a, b = quantity(one), quantity(other)
    if a is not None and b is not None:
        return None  # seven
    if gold == answer:
        return True
    return None if {gold, answer} & {"infinity", "pi"} else False


def _by_quantity(one: str, other: str) -> bool | None:
    b = quantity(other)
    a = quantity(_decimal_comma(one) if b is not None else one)
    if a is None or b is None:
        return None
    if a.unit.kind and a.unit.kind == b.unit.kind:
        return _close(a.value * a.unit.size, b.value * b.unit.size)
    verdicts = [_close(x, y) for x in _readings(a, b) for y in _readings(b, a)]
    return True if True in verdicts else None if None in verdicts else False


def _readings(one: Quantity, other: Quantity) -> Sequence[Fraction]:
    """50% is 50 and one half; beside another percentage it is itself."""
    return (one.value, one.value / 100) if one.percent and not other.percent else (one.value,)


def _close(a: Fraction, b: Fraction) -> bool | None:
    if a == b:
        return True
    return None if abs(a - b) <= NEAR * max(abs(a), abs(b)) else False


def _decimal_comma(text: str) -> str:
    """0,125 and 2,5 where the other answer is one number: no list, and no thousands."""
    return re.sub(r"^([+-]?)(0|\d+(?=,(?!\d{3}(?!\d))))?,(\d+)(?![\d,.])", r"\1\2.\3", text)


def _by_equation(one: str, other: str) -> bool | None:
    """a + b = 5 says that what was asked for is 5, where its sides may be equal. A gold answer that is an equation, and
    more than a name for its value, is not met by one of its sides."""
    if ("=" in one) == ("=" in other):
        return None
    *sides, last = one.split("=")
    letters = letters_of(last)
    if "=" in other or any(
        denies(side) or is_constant(for_reading(side)) or (letters_of(side) and letters_of(side) <= letters)
        for side in sides
        if denies(side) or _same(side, last) is False
    ):
        return False
    return _same(labelled(last)[1], other)


def _by_items(one: str, other: str) -> bool | None:
    gold = items_of(other)
    answer = items_of(one, like=gold)
    if gold is None or answer is None:
        # one number or word against a list of several
        single = other if gold is None else one
        several = answer or gold
        if several is None or len(several.entries) < 2:
            return None
        return False if _is_one(single) else None
    names = [sorted(labelled(entry)[0] for entry in items.entries) for items in (answer, gold)]
    return answer.agrees(gold, _same_named if names[0] == names[1] and len(set(names[1])) > 1 else _same_entry)


def _same_named(one: str, other: str) -> bool | None:
    """Of lists with the same names: AB = 9, CD = 4 is not AB = 4, CD = 9."""
    return _same_entry(one, other) if labelled(one)[0] == labelled(other)[0] else False


def _by_variable(one: str, other: str) -> bool | None:
    """x > 3 is not y > 3, as x = 3 is not y = 3."""
    a, b = ({letter for pair in _BOUNDED.findall(text) for letter in pair if letter} for text in (one, other))
    return False if a and b and not a & b else None


_LESS_OR_MORE = r"(?:<|>|\\[lg]e(?![a-zA-Z]))"
_BOUNDED = re.compile(rf"(?<![a-zA-Z\\])([a-zA-Z])\s*{_LESS_OR_MORE}|{_LESS_OR_MORE}\s*([a-zA-Z])(?![a-zA-Z])")


def _is_one(text: str) -> bool:
    """Whether an answer is one number, word or formula for sure: x is not x, x, which algebra takes for a set."""
    return quantity(text) is not None or words_of(text) is not None or values(for_reading(text)) is not None


_RULES: tuple[Callable[[str, str], bool | None], ...] = (
    _by_base,
    _by_choice,
    _by_quantity,
    _by_words,
    _by_variable,
    _by_items,
    _by_angle,
    _by_equation,
)


def _apart(label: str, named: str) -> bool:
    """Whether two names that are not the same say different things: x and y, (x,y) and (y,x); not x and Area."""
    turned = label.startswith("(") and sorted(label) == sorted(named)
    return turned or (_is_variable(label) and _is_variable(named))


def _is_variable(label: str) -> bool:
    return re.fullmatch(r"[a-zA-Z](?:_\{?\w+\}?)?'*|\\[a-z]+", label) is not None
