"""A task that learns from nothing that it is tested on, on whatever test sets that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tiltlab.datasets.overlap import apart
from tiltlab.errors import AtKey
from tiltlab.tasks.base import Task, grade_texts, notes_of
from tiltlab.types import Grade, Problem, Prompt, Split


@dataclass(frozen=True)
class Apart:
    """A task as it is, but that no question of some test sets stands in its train and validation splits.

    task: that is trained on; it keeps its own splits apart itself.
    sets: tasks whose test splits it is tested on besides.
    """

    task: Task
    sets: tuple[Task, ...]

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    def problems(self, split: Split) -> Sequence[Problem]:
        """The task's, without what stands in one of the test sets.

        Raises UserError for a split that there is not, or that nothing is left of.
        """
        return self.task.problems(split) if split == "test" else self._kept[split][0]

    def notes(self, split: Split) -> Sequence[str]:
        """The task's, and how many rows were left out for each test set."""
        return notes_of(self.task, split) + ([] if split == "test" else self._kept[split][1])

    def render(self, problem: Problem) -> Prompt:
        """As the task does."""
        return self.task.render(problem)

    def grade(self, problem: Problem, text: str) -> Grade:
        """As the task does."""
        return self.task.grade(problem, text)

    def grade_batch(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """As the task does, all at once where it can."""
        return grade_texts(self.task, problems, texts)

    @cached_property
    def _kept(self) -> dict[str, tuple[list[Problem], list[str]]]:
        return {split: self._left(split) for split in ("train", "validation")}

    def _left(self, split: Split) -> tuple[list[Problem], list[str]]:
        rows, notes = list(self.task.problems(split)), []
        for other in self.sets:
            rows, said = apart(rows, split, other.problems("test"), f"test set {other.name}")
            notes += said
        if not rows:
            raise AtKey(split, f"every row of task {self.name}'s {split} split stands in a test set")
        return rows, notes
