"""Ways to spend several GPUs on a study: many jobs at once, or more GPUs a job."""

from collections.abc import Sequence
from dataclasses import replace

from tiltlab.plan.lasting import lasting
from tiltlab.plan.outcome import Way
from tiltlab.plan.pace import pace_of
from tiltlab.plan.remedies import Case
from tiltlab.plan.work import Tokens


def ways(case: Case, jobs: Sequence[Tokens], gpus: int, node: int) -> tuple[Way, ...]:
    """The ways to share so many GPUs out evenly, from one GPU a job to as many as a node holds.

    jobs: what each job of the study draws.
    node: GPUs of a node; no job goes beyond it.
    """
    most = 1 if case.ask.alone else min(gpus, node)
    sizes = [size for size in range(1, most + 1) if gpus % size == 0]
    return tuple(_way(replace(case, ask=replace(case.ask, ranks=size)), jobs, gpus // size) for size in sizes)


def _way(case: Case, jobs: Sequence[Tokens], side_by_side: int) -> Way:
    pace, size = pace_of(case), case.ask.ranks
    took = sorted((pace.job(tokens) for tokens in jobs), reverse=True) if pace.seconds else []
    hours = lasting(took, side_by_side) / 3600 if took else None
    return Way(
        jobs=side_by_side,
        gpus=size,
        rollout=case.rollout,
        update=case.update,
        fits=case.fits,
        groups=case.ask.share.groups,
        seconds=dict(pace.seconds),
        longest=took[0] / 3600 if took else None,
        hours=hours,
        gpu_hours=hours * side_by_side * size if hours is not None else None,
    )
