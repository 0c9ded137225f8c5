"""What a study is tested on: the task's own test split, or several test sets for one training.

Left out on purpose: which rows of train stand in a test set (tasks/apart.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt, TypeAdapter, model_validator

from tiltlab.config.arm import MOST, Count
from tiltlab.config.section import Section, Tokens
from tiltlab.config.tasks import tagged
from tiltlab.storage.files import slug
from tiltlab.tasks.addition import Addition
from tiltlab.tasks.base import Task
from tiltlab.tasks.dataset import Data
from tiltlab.tasks.reasoning_gym import ReasoningGym
from tiltlab.tasks.sums import Sums

More = Annotated[int, Field(ge=0, le=MOST)]


@dataclass(frozen=True)
class Own:
    """The test split of the task that is trained on, whatever that is called; it has no name of its own."""

    task: Literal["own"]
    name: str = ""
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.name:
            raise ValueError("own is called as the task is that is trained on; leave name out")


def _apart(entry: Any) -> Any:
    """An entry of `test` as a `TestSet`: how much of the set is drawn apart from which set it is."""
    if isinstance(entry, str):
        return {"task": entry}
    if not isinstance(entry, dict) or isinstance(entry.get("task"), dict):
        return entry
    how = {key: value for key, value in entry.items() if key in TestSet.model_fields and key != "task"}
    task = {key: value for key, value in entry.items() if key not in how}
    return how | ({"task": task} if task else {})


class TestSet(Section):
    """One test set. In a recipe its name, or a mapping of a task's keys and of these beside them.

    task: whose test split it is; `own` is the task that is trained on.
    problems, n, forecast_n, max_tokens: as for `Testing`, which says what they are where left out.
    """

    task: Annotated[Annotated[Sums | Addition | Data | ReasoningGym | Own, Field(discriminator="task")], tagged("task")]
    problems: PositiveInt | None = None
    n: Count | None = None
    forecast_n: More | None = None
    max_tokens: Tokens | None = None


class Testing(Section):
    """What is reported, on test sets.

    problems: of each set, the first ones; all where left out.
    n: responses to each.
    forecast_n: responses to each that the base arm draws besides, from which the forecast and the verdicts tell its
        sharpening.
    max_tokens: of a response; `train.max_tokens` where left out.
    sets: what is tested on; the task's own test split where left out. `test: [a, b]` is `test: {sets: [a, b]}`.
    """

    problems: PositiveInt | None = None
    n: Count = 16
    forecast_n: More = 48
    max_tokens: Tokens | None = None
    sets: tuple[Annotated[TestSet, BeforeValidator(_apart)], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return {"sets": [given] if isinstance(given, str) else given} if isinstance(given, str | list) else given

    @model_validator(mode="after")
    def _distinct(self) -> "Testing":
        folders = [slug(one.task.name) for one in self.sets]
        twice = [one.task.name for one in self.sets if folders.count(slug(one.task.name)) > 1]
        if twice:
            raise ValueError(f"two test sets are called {twice[0] or 'own'!r}, or nearly so; give one another name")
        return self


@dataclass(frozen=True)
class Tested:
    """A test set of a training, with nothing left open.

    task: whose test split it is.
    is_own: whether it is the test split of the task that is trained on.
    problems: the first ones of the split; None for all.
    n, forecast_n: responses to each.
    max_tokens: of a response.
    """

    task: Task
    is_own: bool
    problems: int | None
    n: int
    forecast_n: int
    max_tokens: int

    @property
    def name(self) -> str:
        """What people and folders call it."""
        return self.task.name


def tested_on(testing: Testing, number: int, tasks: Sequence[Task], max_tokens: int) -> tuple[Tested, ...]:
    """The test sets of a training, in the recipe's order.

    testing: of the recipe.
    number: of the task that is trained on, among the recipe's.
    tasks: of the recipe. A set that is called as one of them is, and says nothing else, is its test split.
    max_tokens: of a response, where `testing` does not say.

    Raises ValueError for a set that is called as a task is and is another one.
    """
    own, told = tasks[number], []
    for one in testing.sets or (TestSet(task=Own("own")),):
        task = own if isinstance(one.task, Own) else _meant(one.task, tasks)
        told.append(
            Tested(
                task=task,
                is_own=task is own,
                problems=testing.problems if one.problems is None else one.problems,
                n=testing.n if one.n is None else one.n,
                forecast_n=testing.forecast_n if one.forecast_n is None else one.forecast_n,
                max_tokens=one.max_tokens or testing.max_tokens or max_tokens,
            )
        )
    if sum(one.is_own for one in told) > 1:
        raise ValueError(f"test: `own` and {own.name!r} are one test set; leave one of them out")
    return tuple(told)


def _meant(one: Task, tasks: Sequence[Task]) -> Task:
    """The recipe's task of this name, where there is one; else the set itself."""
    for task in tasks:
        if one.name == task.name and _kept(one) in (_kept(task), _kept(_plain(task))):
            return task
        if slug(one.name) == slug(task.name):
            raise ValueError(
                f"test set {one.name!r} is called as a task of the recipe is, and is not its test split; "
                "give it another `name`, or say no more than its name"
            )
    return one


def _kept(task: Any) -> Any:
    """A task as run folders keep it, where what was left out is written out."""
    return TypeAdapter(type(task)).dump_python(task)


def _plain(task: Any) -> Any:
    """The task that its name alone stands for; None where there is no such task."""
    try:
        return type(task)(task.task)
    except (TypeError, ValueError):  # it takes more than a name
        return None
