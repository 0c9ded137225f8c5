"""What a study runs: one arm, one task, one seed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol

from tiltlab.config.methods import Arm
from tiltlab.config.recipe import Recipe
from tiltlab.config.testing import Tested
from tiltlab.storage.run_folder import JobDir
from tiltlab.system.world import ALONE, World
from tiltlab.tasks.base import Task

Arguments = ParamSpec("Arguments")


class Tell(Protocol):
    """Told what is being done, again and again."""

    def __call__(self, doing: str, done: int, total: int, news: str = "") -> None:
        """Take a report: what is being done, how much of it, out of how much, and perhaps a line to keep."""
        ...


@dataclass(frozen=True)
class Job:
    """What to run.

    task: whose problems.
    arm: how they are answered.
    seed: of all randomness.
    """

    task: Task
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        """What people call it."""
        return f"{self.task.name} / {self.arm.name} / seed {self.seed}"

    def folder(self, run: Path) -> JobDir:
        """Its files in a run folder."""
        return JobDir.of(run, self.task.name, self.arm.name, self.seed)


@dataclass(frozen=True)
class Work:
    """A job with what it takes to run it.

    job: what to run.
    recipe: of the study, with the device to run on.
    folder: its files.
    tell: told what is being done.
    stopping: asked between steps whether to save and stop; a collective, where several ranks work.
    world: the ranks that work on it together. What each computes it computes for all; rank 0 alone writes.
    """

    job: Job
    recipe: Recipe
    folder: JobDir
    tell: Tell
    stopping: Callable[[], bool]
    world: World = ALONE

    def write(self, function: Callable[Arguments, None], *args: Arguments.args, **given: Arguments.kwargs) -> None:
        """Have rank 0 call what writes a file."""
        if self.world.is_first:
            function(*args, **given)

    @property
    def tests(self) -> tuple[Tested, ...]:
        """What the job is tested on."""
        return self.recipe.tests_of(self.job.task.name)

    def tested(self, test: Tested) -> JobDir:
        """Where the records of a test set are."""
        return self.folder if test.is_own else self.folder.test(test.name)
