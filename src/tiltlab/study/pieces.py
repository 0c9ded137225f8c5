"""Jobs as pieces of work: what a process of the pool gets, and each rank of a job that has several."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tiltlab.config.recipe import Recipe
from tiltlab.study.job import Job, Tell, Work
from tiltlab.study.run import do_job, run_job
from tiltlab.system.devices import apart, settle
from tiltlab.system.world import World

Launch = Callable[..., None]
"""Called as launch(piece of ranks, devices=..., tell=..., stopping=...), as `run_on_ranks` is."""


def workers_gone(run: Path) -> Path:
    """The lock that each process shares while it may write. Workers and ranks outlive a killed parent by a moment: it
    is awaited, before anything is read."""
    path = run / ".workers.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    return path


def begin(threads: int, device: str) -> None:
    """Settle a process of the pool: not where it only watches over ranks, each of which does so itself."""
    if apart(device) == [device]:
        settle(threads, device)


def piece(
    job: Job,
    recipe: Recipe,
    run: Path,
    lock: Path,
    launch: Launch,
    *,
    tell: Tell,
    stopping: Callable[[], bool],
    device: str,
) -> None:
    """Run a job of the pool, on one device, or on several (`devices.apart`), on ranks that `launch` has do it."""
    devices = apart(device)
    work = Work(job, placed(recipe, devices[0]), job.folder(run), tell, stopping)
    with _shared(lock):
        if len(devices) == 1:
            run_job(work)
        else:
            run_job(work, partial(_on_ranks, run, lock, launch, devices), devices)


def rank_piece(
    job: Job,
    recipe: Recipe,
    run: Path,
    lock: Path,
    *,
    world: World,
    tell: Tell,
    stopping: Callable[[], bool],
    device: str,
) -> None:
    """A rank's part in a job."""
    with _shared(lock):
        do_job(Work(job, placed(recipe, device), job.folder(run), tell, stopping, world))


def placed(recipe: Recipe, device: str) -> Recipe:
    """The recipe with the device to run on."""
    return recipe.model_copy(update={"model": replace(recipe.model, device=device)})


def _on_ranks(run: Path, lock: Path, launch: Launch, devices: list[str], work: Work) -> None:
    ranked = partial(rank_piece, work.job, work.recipe, run, lock)
    launch(ranked, devices=devices, tell=work.tell, stopping=work.stopping)


@contextmanager
def _shared(lock: Path) -> Iterator[None]:
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
