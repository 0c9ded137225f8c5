"""Few-shot addition for a real pre-trained model: a task it can do sometimes, with answers of a few tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar, Literal

from tiltlab.grading.answers import grade_number
from tiltlab.seeds import derive
from tiltlab.types import Grade, Problem, Split

MOST_DIGITS = 4

MOST_PAIRS = 20_000
"""Where there are more sums than this, so many are drawn: 10^8 of them would be slow to list and are never needed."""

FEWEST_PROBLEMS = 8
"""An eighth of them is the validation split, which needs one at least."""


@dataclass(frozen=True)
class Addition:
    """Sums a + b of numbers with `digits` digits each, after `shots` worked examples; the response's first line counts.

    task: its name in a recipe.
    digits: how many a and b have, each from 1 to 4.
    shots: how many worked examples stand before the question.
    name: what people and folders call the task.

    The examples are the same for every problem and are no problems themselves. Problems are shuffled once and split:
    a quarter test, an eighth validation, the rest train; where there are more than 20,000 sums, so many are drawn. A
    model answers such a prompt with a line, not with EOS, so the recipe's model should have `stop: "\\n"`.
    """

    task: Literal["addition"] = "addition"
    digits: tuple[int, int] = (2, 1)
    shots: int = 4
    name: str = "addition"
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that are too long and for more examples than there are sums to spare."""
        if len(self.digits) != 2 or not all(1 <= d <= MOST_DIGITS for d in self.digits):
            raise ValueError(f"addition: digits must be two numbers from 1 to {MOST_DIGITS}, got {list(self.digits)}")
        most = len(_pairs(self.digits)) - FEWEST_PROBLEMS
        if not 0 <= self.shots <= most:
            raise ValueError(
                f"addition: shots must be from 0 to {most} for digits {list(self.digits)}, got {self.shots}"
            )

    def problems(self, split: Split) -> Sequence[Problem]:
        """All sums of a split, the same in the same order at each call."""
        pairs = _pairs(self.digits)[self.shots :]
        test, validation = len(pairs) // 4, len(pairs) // 4 + len(pairs) // 8
        chosen = {"test": pairs[:test], "validation": pairs[test:validation], "train": pairs[validation:]}[split]
        return [Problem(f"{a}+{b}", f"{a}+{b}", str(a + b)) for a, b in chosen]

    def render(self, problem: Problem) -> str:
        """The worked examples, a line each, and the question."""
        shown = "".join(f"{a}+{b}={a + b}\n" for a, b in _pairs(self.digits)[: self.shots])
        return f"{shown}{problem.question}="

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the first line is the sum, and nothing else."""
        return grade_number(text, problem.answer, "first_line")


@cache
def _pairs(digits: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    left, right = (range(10 ** (d - 1) if d > 1 else 0, 10**d) for d in digits)
    rng = random.Random(derive(0, "addition", digits))
    if len(left) * len(right) > MOST_PAIRS:
        drawn = rng.sample(range(len(left) * len(right)), MOST_PAIRS)
        return tuple((left[i // len(right)], right[i % len(right)]) for i in drawn)
    pairs = list(product(left, right))
    rng.shuffle(pairs)
    return tuple(pairs)
