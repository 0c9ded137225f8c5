"""Whether answers of a task can be voted on: equal ones can be told, as they have a normal form.

Left out on purpose: answers that are formulas. Two spellings of one formula are two answers, as in maj@k.
"""

from collections.abc import Sequence

from tiltlab.config.arm import AnyArm
from tiltlab.errors import UserError
from tiltlab.forecast.answers import is_free_text
from tiltlab.tasks.base import Task
from tiltlab.types import Problem


def require_votable(task: Task, problems: Sequence[Problem], arms: Sequence[AnyArm]) -> None:
    """Raises UserError, naming the task and the arms, where arms count equal answers and most of the task's gold
    answers are free text."""
    voting = [arm.name for arm in arms if arm.votes]
    if voting and sum(is_free_text(problem.answer) for problem in problems) > len(problems) / 2:
        raise UserError(
            f"answers of task {task.name} are free text, which has no normal form to vote on; leave out "
            f"{', '.join(voting)}, or grade short answers"
        )
