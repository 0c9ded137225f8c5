"""Few-shot addition for a real pre-trained model: a task it can do sometimes, with answers of a few tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal

from tiltlab.seeds import derive
from tiltlab.tasks.answers import grade_number
from tiltlab.tasks.base import Split
from tiltlab.types import Grade, Problem


@dataclass(frozen=True)
class Addition:
    """Sums a + b of numbers with `digits` digits each, after `shots` worked examples; the response's first line counts.

    The examples are the same for every problem and are no problems themselves. Problems are shuffled once and split:
    a quarter test, an eighth select, the rest train. A model answers such a prompt with a line, not with EOS, so the
    recipe's model should have `stop: "\\n"`.
    """

    task: Literal["addition"] = "addition"
    digits: tuple[int, int] = (2, 1)
    shots: int = 4
    name: str = "addition"
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def problems(self, split: Split) -> Sequence[Problem]:
        pairs = self._pairs()[self.shots :]
        test, select = len(pairs) // 4, len(pairs) // 4 + len(pairs) // 8
        chosen = {"test": pairs[:test], "select": pairs[test:select], "train": pairs[select:]}[split]
        return [Problem(f"{a}+{b}", f"{a}+{b}", str(a + b)) for a, b in chosen]

    def render(self, problem: Problem) -> str:
        shown = "".join(f"{a}+{b}={a + b}\n" for a, b in self._pairs()[: self.shots])
        return f"{shown}{problem.question}="

    def grade(self, problem: Problem, text: str) -> Grade:
        return grade_number(text, problem.answer, "first_line")

    def _pairs(self) -> list[tuple[int, int]]:
        left, right = (range(10 ** (d - 1) if d > 1 else 0, 10**d) for d in self.digits)
        pairs = list(product(left, right))
        random.Random(derive(0, "addition", self.digits)).shuffle(pairs)
        return pairs
