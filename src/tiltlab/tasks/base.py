"""What tiltlab asks of a task, and how a batch of responses is graded."""

from collections.abc import Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

from tiltlab.rewards.functions import Reward, rewarded, try_reward
from tiltlab.types import Grade, Problem, Prompt, Rollout, Split


class Task(Protocol):
    """Problems, how to put them to a model, and what a response is worth."""

    @property
    def name(self) -> str:
        """What people and folders call it; no two tasks of a study have the same."""
        ...

    def problems(self, split: Split) -> Sequence[Problem]:
        """All problems of a split, the same in the same order at each call.

        split: "train" is learnt from, "validation" chooses the best checkpoint, "test" is reported. No problem stands
        in
            two of them.

        Raises UserError where there is no such split, or its data cannot be read.
        """
        ...

    def render(self, problem: Problem) -> Prompt:
        """What the model is given: text, or chat messages."""
        ...

    def grade(self, problem: Problem, text: str) -> Grade:
        """What a response is worth. Where grading takes too long or fails, the reward is NaN and the reason says so.

        text: as a reader sees it, without the end and special tokens. It is read, never executed.
        """
        ...


@runtime_checkable
class BatchGrading(Protocol):
    """A task that grades many responses at once, side by side, faster than one by one."""

    def grade_batch(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """As `grade` does, in order.

        problems, texts: in pairs, as many of the one as of the other.
        """
        ...


@runtime_checkable
class LenientReading(Protocol):
    """A task that can also read answers where it does not ask for them."""

    def lenient(self) -> "Task | None":
        """The task so read; None where it reads so already."""
        ...


@runtime_checkable
class Noting(Protocol):
    """A task with something to say of how a split was made: rows left out, which gold answers were read."""

    def notes(self, split: Split) -> Sequence[str]:
        """One line each. Raises what `problems` raises."""
        ...


def notes_of(task: Task, split: Split) -> list[str]:
    """What there is to say of a split, one line each. Raises what `task.problems(split)` raises."""
    return list(task.notes(split)) if isinstance(task, Noting) else []


def grade_texts(task: Task, problems_N: Sequence[Problem], texts_N: Sequence[str]) -> list[Grade]:
    """A grade for every response; all at once where the task can.

    problems_N, texts_N: in pairs, as many of the one as of the other.
    """
    if isinstance(task, BatchGrading):
        return task.grade_batch(problems_N, texts_N)
    return [task.grade(problem, text) for problem, text in zip(problems_N, texts_N, strict=True)]


def grade_all(
    task: Task,
    problems_P: Sequence[Problem],
    rollouts_PG: Sequence[Sequence[Rollout]],
    reward: Reward | None = None,
) -> list[list[Grade]]:
    """A grade for every rollout, `[P][G]`.

    rollouts_PG: `[P][G]`, the responses to each problem.
    reward: of the user's own, in place of the task's. The task still says whether the answer is right, but for
        responses that the reward fails on.
    """
    pairs_N = [(p, rollout.text) for p, group in zip(problems_P, rollouts_PG, strict=True) for rollout in group]
    rest = iter(grade_texts(task, [problem for problem, _ in pairs_N], [text for _, text in pairs_N]))
    grades_PG = [list(islice(rest, len(group))) for group in rollouts_PG]
    if reward is None:
        return grades_PG
    prompts_P = [task.render(problem) for problem in problems_P]
    return rewarded(reward, prompts_P, problems_P, rollouts_PG, grades_PG)


def try_on_gold(reward: Reward, task: Task, split: Split) -> None:
    """Call a reward on a few gold answers: one that cannot be called, or that misbehaves, is better known early.

    Raises UserError where it does.
    """
    problems = [problem for problem in task.problems(split)[:2] for _ in range(2)]
    prompts = [task.render(problem) for problem in problems]
    try_reward(reward, prompts, problems, [problem.answer for problem in problems])
