"""What is shown while work goes on: bars on the error stream, and a line for whatever is worth keeping."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tiltlab.system.streams import line, stderr
from tiltlab.system.visible import on_one_line

if TYPE_CHECKING:
    from tiltlab.study.job import Job
    from tiltlab.study.study import OnProgress
    from tiltlab.study.tracking import Mirror

errors = Console(file=stderr, stderr=True, soft_wrap=True, highlight=False)


EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars on a terminal; elsewhere a line for each, every so many seconds, however long a step takes."""
    ended = Event()
    with _bars() as shown:
        teller = Thread(target=_tell, args=(shown, ended), daemon=True)
        if not errors.is_terminal:
            teller.start()
        try:
            yield shown
        finally:
            ended.set()
            if teller.is_alive():
                teller.join()


def _tell(shown: Progress, ended: Event) -> None:
    while not ended.wait(EVERY):
        for task in shown.tasks:
            errors.print(line(_in_words(task)))


def _in_words(task: Task) -> str:
    """How far a task is, with the time that it may take yet: rather more, as responses may end before their limit."""
    said = f"{task.description}: {timedelta(seconds=int(task.elapsed or 0))} so far"
    if task.total:
        said += f", {int(task.completed)} of {int(task.total)}"
    if task.time_remaining:
        said += f", about {timedelta(seconds=int(task.time_remaining))} left"
    return said


def _bars() -> Progress:
    """Names may look like markup, and are none."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors, transient=True, speed_estimate_period=300)


@contextmanager
def jobs_progress(run: Path, mirror: "Mirror | None" = None) -> Iterator["OnProgress"]:
    """One bar for each job that is running.

    run: the run folder.
    mirror: told whenever a job has news.

    Yields what the study is to tell of its jobs.
    """
    with bars() as shown:
        bar_of: dict[str, TaskID] = {}

        def on_progress(job: "Job", doing: str, done: int, total: int, news: str = "") -> None:
            if news:
                shown.console.print(line(f"{job.key}: {news}", style="yellow"), soft_wrap=True)
            if mirror:
                mirror.look(job.key, job.folder(run), ended=total == 0)
            if total == 0 and job.key in bar_of:
                shown.remove_task(bar_of.pop(job.key))
                ended = "failed" if job.folder(run).failed.exists() else "done"
                shown.console.print(line(f"{job.key}: {ended}"))
                return
            if job.key not in bar_of:
                bar_of[job.key] = shown.add_task(on_one_line(job.key))
            shown.update(bar_of[job.key], description=on_one_line(f"{job.key} · {doing}"), completed=done, total=total)

        yield on_progress
