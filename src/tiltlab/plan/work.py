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
    "hmmt_feb25": 30,
    "olympiadbench": 674,
}
"""Problems in the test splits of named sets, as published: a plan asks nothing of the hub."""

Count = Callable[[Split, int | None], int]
"""How many problems of a split are taken, where so many are wanted (None: all)."""


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


def tokens_of(arm: Arm, recipe: Recipe, count: Count) -> Tokens:
    """What a job of an arm draws, each response as long as it may be."""
    test, train, validation = recipe.test, recipe.train, recipe.validation
    tested = count("test", test.problems)
    responses = tested * arm.sampler().drawn(test.n)
    if arm.objective() is None:
        responses += tested * test.forecast_n * isinstance(arm, Base)
        return Tokens(0, responses * train.max_tokens)
    evaluations = 1 + -(-train.steps // validation.every)  # before the first step, every so many, after the last
    responses *= 2  # of the last checkpoint and of the best
    responses += evaluations * count("validation", validation.problems) * validation.n
    return Tokens(train.steps * train.prompts * train.responses * train.max_tokens, responses * train.max_tokens)


def counted(task: Task) -> Count:
    """The problems of a task, counted."""
    return lambda split, wanted: len(task.problems(split)[:wanted])


def counted_offline(task: Task, notes: list[str]) -> Count:
    """The problems of a task as far as they are known without the hub: those of a named set as published.

    notes: gets a line where it had to be taken for something.
    """

    def count(split: Split, wanted: int | None) -> int:
        if isinstance(task, Data) and _on_the_hub(task, split):
            there = SIZES.get(str(task.test or task.task)) if split == "test" else wanted
            if there is None:
                notes.append(f"{task.name}: how many problems its test split has is not known; evaluation is left out")
            return min(there or 0, wanted or there or 0)
        try:
            return counted(task)(split, wanted)
        except UserError as error:
            notes.append(f"{error}; its {split} split is left out")
            return 0

    return count


def _on_the_hub(task: Data, split: Split) -> bool:
    source = task.test if split == "test" else task.train
    return task.task != "data" if source is None else not (isinstance(source, str) and is_file(source))
