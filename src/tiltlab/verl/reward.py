"""The task's own grade as the reward of verl, which calls it response by response.

Named in the exported config as custom_reward_function: pkg://tiltlab.verl.reward. Imports nothing of verl.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tiltlab.config.tasks import load_task
from tiltlab.records.verl import OURS
from tiltlab.tasks.base import Task
from tiltlab.types import UNKNOWN, Problem


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    task: str,
    **_: Any,
) -> dict[str, Any]:
    """The grade of a response, as verl keeps it: `score` is its reward.

    solution_str: the response, special tokens left out. It is read, never executed.
    ground_truth: the gold answer.
    extra_info: with `id` and `question` of the problem, as the exported data have them.
    task: the recipe's entry, as YAML.

    Where nobody knows, the reward is NaN, so that the response leaves its group, and `acc` is null: verl's averages of
    it count the response as wrong.
    """
    problem = Problem(extra_info["id"], extra_info["question"], ground_truth)
    grade = _task(task).grade(problem, solution_str)
    return {
        "score": grade.reward,
        "acc": None if grade.reason in UNKNOWN else float(grade.reason == "correct"),
        "answer": grade.answer,
        "reason": grade.reason,
        "problem": problem.id,
        "grader": OURS,
    }


@cache
def _task(entry: str) -> Task:
    return load_task(entry)
