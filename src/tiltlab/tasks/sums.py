"""Three tasks of two-digit sums, told by imaginary students, that tell the ways to sharpen apart.

lazy-sum: over half of the students answer at once, column by column, and forget the carry: short, and always the same
    wrong answer. The others write out the steps in many wordings and are mostly right: no single right response is
    likely, though right ones together are common. Likelihood and votes both go for the lazy answer.
noisy-sum: everybody writes the steps in one wording and slips now and then. The likeliest response is the right one,
    and so is the most frequent answer.
spread-sum: as lazy-sum, but the lazy are few. Theirs is still the likeliest response by far, as the others' are all
    different; counted by answer the others win. Likelihood goes for the wrong answer, votes for the right one.

Every problem has a carry in its ones column, so the lazy answer is never right. The embedded reference model has learnt
the students' mixture from `write` below.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

from tiltlab.seeds import derive
from tiltlab.types import Grade, Problem, Split

LAZY = {"lazy-sum": 0.58, "spread-sum": 0.22}
"""Share of lazy students. The right answer has 0.96 ** 3 = 0.88 of the rest: 0.37 on lazy-sum, 0.69 on spread-sum."""

CARELESS = 0.04
"""Chance of a slip in each step of a student who is not lazy; slips scatter over a dozen wrong answers."""

SLIP = 0.2
"""Chance of a slip in each step on noisy-sum: a response is right with probability 0.8 ** 3 = 0.51."""

SIZES: dict[Split, int] = {"test": 300, "validation": 200, "train": 3145}
"""Problems in each split; together all 3645 sums of two two-digit numbers with a carry in the ones column."""


@dataclass(frozen=True)
class Sums:
    """Two-digit sums, as imaginary students answer them; all tasks have the same problems in the same splits.

    task: which students (see above); it is the task's name too.
    """

    task: Literal["lazy-sum", "noisy-sum", "spread-sum"]
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    @property
    def name(self) -> str:
        """What people and folders call it."""
        return self.task

    def problems(self, split: Split) -> Sequence[Problem]:
        """All sums of a split, in a fixed random order; `columns` of each hold its two numbers, a and b."""
        start = {"test": 0, "validation": SIZES["test"], "train": SIZES["test"] + SIZES["validation"]}[split]
        pairs = _all_pairs()[start : start + SIZES[split]]
        return [Problem(f"{a}+{b}", f"{a}+{b}", str(a + b), {"a": a, "b": b}) for a, b in pairs]

    def render(self, problem: Problem) -> str:
        """Which students are asked, and the sum: "lazy 27+35="."""
        return f"{self.task.removesuffix('-sum')} {problem.question}="

    def grade(self, problem: Problem, text: str) -> Grade:
        """The answer is the number that the response ends with."""
        number = re.search(r"([0-9]{1,6})\s*$", text[-100:])
        if not number:
            return Grade(0.0, None, "no_answer")
        answer = number[1].lstrip("0") or "0"
        return Grade(1.0, answer, "correct") if answer == problem.answer else Grade(0.0, answer, "wrong")


def write(task: str, a: int, b: int, rng: random.Random) -> str:
    """What one student, drawn at random, answers to a + b.

    task: "lazy-sum" or "noisy-sum".
    rng: the random numbers that say which student and what slips.
    """
    if task == "noisy-sum":
        ones, tens, total = _work(a, b, SLIP, rng)
        return f"{a % 10}+{b % 10}={ones} carry {ones // 10}, {a // 10}+{b // 10}+{ones // 10}={tens}, so {total}"
    if rng.random() < LAZY[task]:
        return f"{a // 10 + b // 10}{(a + b) % 10}"
    ones, tens, total = _work(a, b, CARELESS, rng)
    x, y, m, n = a % 10, b % 10, a // 10, b // 10
    opening = rng.choice(["", "ok ", "so ", "well ", "hm ", "now ", "yes ", "and ", "first ", "let "])
    first = rng.choice([f"{x}+{y}={ones}", f"{x} and {y} is {ones}", f"{y}+{x} is {ones}", f"{x}+{y} makes {ones}"])
    carry = rng.choice([" carry ", " keep ", " hold ", " up goes ", " on goes "]) + str(ones // 10)
    second = rng.choice(
        [f"{m}+{n}+{ones // 10}={tens}", f"{ones // 10}+{m}+{n} is {tens}", f"{n}+{m}+{ones // 10} makes {tens}"]
    )
    closing = rng.choice(["so ", "answer ", "total ", "gives ", "it is ", "that is "])
    comma, stop = rng.choice([", ", "; ", " "]), rng.choice([", ", "; ", " "])
    return f"{opening}{first}{carry}{comma}{second}{stop}{closing}{total}"


def _work(a: int, b: int, slip: float, rng: random.Random) -> tuple[int, int, int]:
    """Ones column, tens column with the carry, and the number put together; each step may be a little off."""

    def slipping(value: int) -> int:
        return abs(value + rng.choice([-3, -2, -1, 1, 2, 3])) if rng.random() < slip else value

    ones = slipping(a % 10 + b % 10)
    tens = slipping(a // 10 + b // 10 + ones // 10)
    return ones, tens, slipping(10 * tens + ones % 10)


@cache
def _all_pairs() -> tuple[tuple[int, int], ...]:
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if a % 10 + b % 10 >= 10]
    random.Random(derive(0, "sums")).shuffle(pairs)
    return tuple(pairs)
