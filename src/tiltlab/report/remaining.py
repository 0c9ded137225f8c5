"""How long a study takes yet: by the steps of what trains, and by what like jobs took. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from tiltlab.plan.lasting import lasting


@dataclass(frozen=True)
class Course:
    """A job as far as its time goes.

    task, arm: by name.
    trained: whether the arm trains.
    done: whether it is.
    spent: seconds that it was worked on.
    left: seconds of training left at its rate of late, None where it has none.
    """

    task: str
    arm: str
    trained: bool
    done: bool
    spent: float
    left: float | None


@dataclass(frozen=True)
class Remaining:
    """What a study takes yet.

    seconds: with so many jobs side by side; None where nothing is known of any job that is left.
    at_a_time: jobs side by side.
    unknown: jobs that are left and are not in it: no like job tells how long they take.
    """

    seconds: float | None
    at_a_time: int
    unknown: int


def remaining(jobs: Sequence[Course], at_a_time: int) -> Remaining:
    """What the jobs of a study take yet.

    jobs: those that are done, and those that are to be; the ones that run come first.
    at_a_time: how many run side by side.
    """
    left = [_left(job, jobs) for job in jobs if not job.done]
    known = [seconds for seconds in left if seconds is not None]
    seconds = lasting(known, at_a_time) if known or not left else None
    return Remaining(seconds, at_a_time, len(left) - len(known))


def _left(job: Course, jobs: Sequence[Course]) -> float | None:
    whole = _like(job, [other for other in jobs if other is not job])
    if whole is None:
        return job.left
    return max(job.left or 0.0, whole - job.spent)


def _like(job: Course, others: Sequence[Course]) -> float | None:
    """Seconds that the jobs took which are most like this one; None where none is like it. Arms that train are like
    each other; samplers are not."""
    closer = [
        [other for other in others if (other.task, other.arm) == (job.task, job.arm)],
        [other for other in others if other.task == job.task and other.trained and job.trained],
        [other for other in others if other.arm == job.arm],
        [other for other in others if other.trained and job.trained],
    ]
    for alike in closer:
        took = [other.spent for other in alike if other.done and other.spent] or [
            other.spent + other.left for other in alike if other.left is not None
        ]
        if took:
            return mean(took)
    return None
