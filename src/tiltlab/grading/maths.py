"""Is the answer of a response the gold answer? What is certain at a glance first, then guards, then algebra in workers.

strict (the default): the last complete \\boxed{...} counts; where there is no box at all, a last line that declares the
answer ("The answer is 7.", "Final answer: 7", "#### 7") does. Nothing else in a response does: not a gold answer buried
in prose, not a box left open, not every number from 0 to 100.
lenient: where nothing is declared, the last formula or number, wherever it stands, as the paper's verifier finds it.

Left out on purpose: what is certain at a glance (compare.py), algebra (equality.py), partial credit.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tiltlab.grading.answers import declared_answer
from tiltlab.grading.compare import agree, for_algebra, is_read, normal
from tiltlab.system.guarded_calls import Failed, call_all
from tiltlab.types import Grade

Mode = Literal["strict", "lenient"]

DEADLINE = 2.0
"""Seconds for one comparison by algebra."""

WARM = ("tiltlab.grading.equality",)
"""What a worker imports before its first comparison."""

TAIL = 8000
"""Characters at the end of a response that the lenient mode reads."""

LONGEST, DEEPEST = 1000, 30
"""Characters and depth of brackets beyond which an answer is not given to algebra."""

_EXPLODES = re.compile(
    r"\d{60}"  # a run of digits
    r"|(?:\^|\*\*)[\s({]*-?\d{5}"  # x^{10000}
    r"|\^\s*[{(]\s*[\w.]+\s*\^\s*[{(]\s*[\w.]+\s*\^|(?:(?:\^|\*\*)\s*\d+\s*){3}"  # a^{b^{c^d}}, 9**9**9**9
    r"|\d{4,}[\s)}]*!|\^\s*\{?\d+[\s})]*!"  # 10000!, (10^9)!
)


class Ask(NamedTuple):
    """A comparison that takes algebra.

    read: the answer, or in the lenient mode the end of the response.
    gold: the gold answer; both as LaTeX.
    shown: the answer in its normal form; None where algebra must find it first.
    """

    read: str
    gold: str
    shown: str | None


def grade_maths(text: str, gold: str, mode: Mode = "strict") -> Grade:
    """The grade of one response; `grade_many` is faster for more, and says what a grade holds.

    text: the response.
    gold: the right answer.
    mode: how the answer is read out of the response, as this module's docstring says.
    """
    return grade_many([(text, gold)], mode)[0]


def grade_many(pairs: Sequence[tuple[str, str]], mode: Mode = "strict", deadline: float = DEADLINE) -> list[Grade]:
    """Grades of (response, gold answer) pairs, in order.

    pairs: texts; neither is ever executed.
    mode: how the answer is read out of a response, as this module's docstring says.
    deadline: seconds for one comparison by algebra.

    Reward 1 or 0; NaN where nobody knows: "timeout" for a comparison that took longer than the deadline, "error" for
    one that failed or whose worker died. Grade.answer is a normal form, so that equal plain answers vote together.
    Never raises for what a text holds, and may be called from several threads at once.
    """
    glances = [_glance(text, gold, mode) for text, gold in pairs]
    asks = list(dict.fromkeys(glance for glance in glances if isinstance(glance, Ask)))
    verdicts = call_all(_by_algebra, [(ask,) for ask in asks], deadline, warm=WARM)
    grades = {ask: _graded(ask, verdict) for ask, verdict in zip(asks, verdicts, strict=True)}
    return [grades[glance] if isinstance(glance, Ask) else glance for glance in glances]


def unread(golds: Sequence[str], deadline: float = DEADLINE) -> list[bool]:
    """For each gold answer, whether only its own letters can meet it: it is no number, word, list or formula.

    deadline: seconds for algebra to read one.
    """
    glances = [is_read(gold) for gold in golds]
    asked = [gold for gold, glance in zip(golds, glances, strict=True) if glance is None and not _is_too_much(gold)]
    calls = [(for_algebra("", gold)[1],) for gold in asked]
    formulas = dict(zip(asked, call_all(_is_formula, calls, deadline, warm=WARM), strict=True))
    return [
        not (formulas.get(gold) is True if glance is None else glance)
        for gold, glance in zip(golds, glances, strict=True)
    ]


def _is_formula(text: str) -> bool:
    from tiltlab.grading import equality

    equality.silence()
    return equality.is_formula(text)


def _glance(text: str, gold: str, mode: Mode) -> Grade | Ask:
    answer = declared_answer(text)
    if answer is None and mode == "strict":
        return Grade(0.0, None, "no_answer")
    if answer is not None:
        shown = normal(answer)[:200]
        certain = agree(answer, gold)
        if certain is None and (_is_too_much(answer) or _is_too_much(gold)):
            certain = False  # what is past the guards is right only to the letter
        if certain is None:
            return Ask(*for_algebra(answer, gold), shown)
        return Grade(1.0, shown, "correct") if certain else Grade(0.0, shown, "wrong")
    return (
        Ask(text[-TAIL:], for_algebra("", gold)[1], None)
        if not _is_too_much(text[-TAIL:], TAIL)
        else Grade(0.0, None, "no_answer")
    )


def _is_too_much(expression: str, longest: int = LONGEST) -> bool:
    """Whether algebra would choke on it: too long, too deep, or a few signs that stand for astronomical numbers."""
    if len(expression) > longest or _EXPLODES.search(expression):
        return True
    depth = deepest = 0
    for character in expression:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def _by_algebra(ask: Ask) -> tuple[bool | None, str | None]:
    """In a worker: whether they are equal (None: the answer cannot be read), and the answer in its normal form."""
    from tiltlab.grading import equality  # it brings sympy, which the parent can do without

    equality.silence()
    if ask.shown is not None:
        return equality.equal(ask.read, ask.gold), ask.shown
    return equality.equal_in_text(ask.read, ask.gold)


def _graded(ask: Ask, verdict: tuple[bool | None, str | None] | Failed) -> Grade:
    if isinstance(verdict, Failed):
        return Grade(float("nan"), ask.shown, verdict.reason)
    equal, shown = verdict
    if equal is None and ask.shown is None:
        return Grade(0.0, None, "no_answer")
    shown = normal(shown)[:200] if ask.shown is None and shown else shown
    return Grade(float(bool(equal)), shown, "correct" if equal else "wrong")
