"""Tokens that the jobs of a study draw, at most. Pure, but for the problems of a split, which are counted."""

from collections.abc import Callable
from dataclasses import dataclass

from tiltlab.config.methods import Arm, Base
from tiltlab.config.recipe import Recipe
from tiltlab.datasets.files import is_file
from tiltlab.errors import UserError
from tiltlab.tasks.base import Task
from tiltlab.tasks.dataset import Data
from tiltlab.types import Split

SIZES = {
    "math": 5000,
    "math500": 500,
    "minerva": 272,
    "gsm8k": 1319,
    "aime24": 30,
    "aime25": 30,
    "hmmt_feb24": 30,
    "hmmt_feb25": 30,
    "olympiadbench": 674,
}
"""Problems in the test splits of named sets, as published: a plan asks nothing of the hub."""

Count = Callable[[Task, Split, int | None], int]
"""How many problems of a task's split are taken, where so many are wanted (None: all)."""


@dataclass(frozen=True)
class Tokens:
    """What a job draws, at most.

    trained: in training.
    evaluated: for validation, tests and the forecast.
    """

    trained: int
    evaluated: int

    @property
    def drawn(self) -> int:
        """All of them."""
        return self.trained + self.evaluated


def tokens_of(arm: Arm, recipe: Recipe, task: Task, count: Count) -> Tokens:
    """What a job of an arm draws, each response as long as it may be.

    task: that it is of.
    """
    train, validation = recipe.train, recipe.validation
    trains = arm.objective() is not None
    tested = 0
    for test in recipe.tests_of(task.name):
        responses = arm.sampler().drawn(test.n) * (2 if trains else 1)  # of the last checkpoint and of the best
        responses += test.forecast_n * isinstance(arm, Base)
        tested += count(test.task, "test", test.problems) * responses * test.max_tokens
    if not trains:
        return Tokens(0, tested)
    evaluations = 1 + -(-train.steps // validation.every)  # before the first step, every so many, after the last
    validated = evaluations * count(task, "validation", validation.problems) * validation.n
    validated *= validation.max_tokens or train.max_tokens
    return Tokens(train.steps * train.prompts * train.responses * train.max_tokens, validated + tested)


def counted(task: Task, split: Split, wanted: int | None) -> int:
    """The problems of a task's split that are taken, as its data has them."""
    return len(task.problems(split)[:wanted])


def counted_offline(notes: list[str]) -> Count:
    """The problems of a task as far as they are known without the hub: those of a named set as published.

    notes: gets a line where it had to be taken for something.
    """

    def count(task: Task, split: Split, wanted: int | None) -> int:
        if isinstance(task, Data) and _on_the_hub(task, split):
            there = SIZES.get(str(task.test or task.task)) if split == "test" else wanted
            if there is None:
                notes.append(f"{task.name}: how many problems its test split has is not known; evaluation is left out")
            return min(there or 0, wanted or there or 0)
        try:
            return counted(task, split, wanted)
        except UserError as error:
            notes.append(f"{error}; its {split} split is left out")
            return 0

    return count


def _on_the_hub(task: Data, split: Split) -> bool:
    source = task.test if split == "test" else task.train
    return task.task != "data" if source is None else not (isinstance(source, str) and is_file(source))
