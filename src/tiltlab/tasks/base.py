"""What tiltlab asks of a task, and how a batch of responses is graded."""

from collections.abc import Sequence
from typing import Literal, Protocol

from tiltlab.tasks.rewards import RewardFunction, rewarded
from tiltlab.types import Grade, Problem, Prompt, Rollout

Split = Literal["train", "select", "test"]
"""train: learnt from. select: chooses the best checkpoint. test: reported. No problem stands in two of them."""


class Task(Protocol):
    """Problems, how to put them to a model, and what a response is worth."""

    @property
    def name(self) -> str: ...

    def problems(self, split: Split) -> Sequence[Problem]: ...

    def render(self, problem: Problem) -> Prompt: ...

    def grade(self, problem: Problem, text: str) -> Grade: ...


def grade_all(
    task: Task,
    problems_P: Sequence[Problem],
    rollouts_PG: Sequence[Sequence[Rollout]],
    reward: RewardFunction | None = None,
) -> list[list[Grade]]:
    """A grade for every rollout, [P][G]. A reward function of the user's own replaces the task's reward; the task still
    says whether the answer is right.

    Raises UserError where that function returns NaN or the wrong number of values.
    """
    grades_PG = [
        [task.grade(problem, rollout.text) for rollout in group]
        for problem, group in zip(problems_P, rollouts_PG, strict=True)
    ]
    if reward is None:
        return grades_PG
    prompts_P = [task.render(problem) for problem in problems_P]
    return rewarded(reward, prompts_P, problems_P, rollouts_PG, grades_PG)
