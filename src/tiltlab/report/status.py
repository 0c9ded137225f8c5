"""Where the jobs of a run are, from its folder alone, for whoever looks in. Imports no torch."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tiltlab.report.load import about_study
from tiltlab.report.remaining import Course, Remaining, remaining
from tiltlab.storage import shapes
from tiltlab.storage.files import Json
from tiltlab.storage.natures import Trained
from tiltlab.storage.place import Place, Where, place_of
from tiltlab.storage.run_folder import JobDir
from tiltlab.storage.shaped import or_else, read_shaped, read_steps
from tiltlab.training.alarms import alarms

RECENT = 10
"""Steps that tell how long the next ones take."""

SILENT = 1800.0
"""Seconds without a change after which a process that cannot be asked may have been killed; longer where its steps take
long (`STEPS`)."""

STEPS = 5

State = Literal["waiting", "begun", "training", "testing", "stopped", "killed", "done", "failed"]

RUNS: tuple[State, ...] = ("begun", "training", "testing")
"""As far as anybody can tell."""


@dataclass(frozen=True)
class JobStatus:
    """Where one job is.

    task, arm: by name.
    seed: of the job.
    state: whether it waits, runs, was stopped or killed, is done or has failed.
    step, of: training steps done and in all; None for arms that do not train.
    rate: steps a second of late, None where nothing is known.
    left: seconds of training left at that rate, None where nothing is known, or nothing is left.
    alarms: that fired, one line each.
    why: a job failed.
    where: it runs, or was killed; None where it does not run, or an older version wrote the folder.
    changed: seconds since its files changed, None where there are none.
    is_silent: it runs as far as its folder tells, but its process cannot be asked from here and its files have not
        changed for so long that it may have been killed.
    """

    task: str
    arm: str
    seed: int
    state: State
    step: int | None = None
    of: int | None = None
    rate: float | None = None
    left: float | None = None
    alarms: tuple[str, ...] = ()
    why: str | None = None
    where: Where | None = None
    changed: float | None = None
    is_silent: bool = False

    @property
    def runs(self) -> bool:
        """Whether it does, as far as anybody can tell."""
        return self.state in RUNS


@dataclass(frozen=True)
class Status:
    """Where a study is.

    name: of the study.
    jobs: all of them, seed by seed.
    changed: seconds since anything was written.
    remaining: what it takes yet.
    """

    name: str
    jobs: tuple[JobStatus, ...]
    changed: float
    remaining: Remaining

    @property
    def is_over(self) -> bool:
        """Whether every job is done or has failed."""
        return all(job.state in ("done", "failed") for job in self.jobs)


def status_of(run: Path) -> Status:
    """Where the study in a run folder is. Raises UserError where there is none, or a damaged file."""
    about = about_study(run)
    recipe = about["recipe"]
    numbers = range(recipe["seed"], recipe["seed"] + about["seeds"])
    arms = list(zip(about["arms"], recipe["arms"], strict=True))
    with or_else("remove its job's folder, and the study's command makes it again"):
        told = [
            _job(run, task, arm, seed, config["arm"] in get_args(Trained), recipe["train"]["steps"])
            for seed in numbers
            for task in about["data"]
            for arm, config in arms
        ]
    jobs = tuple(job for job, _ in told)
    changed = min([since([run / "study.json"]), *(job.changed for job in jobs if job.changed is not None)])
    return Status(recipe["name"], jobs, changed, _remaining(told, about["made"][-1].get("jobs")))


def since(files: Iterable[Path]) -> float:
    """Seconds since the newest of some files was written."""
    return max(0.0, time.time() - max(map(_changed, files)))


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # half of a file, which is whole by now, or what a job that goes on drops
        return 0.0


def is_silent(where: Where | None, changed: float, step: float = 0.0) -> bool:
    """Whether what runs as far as its folder tells has written nothing for so long that it may have been killed. One
    whose process can be asked from here is not.

    where: it runs, as far as is known.
    changed: seconds since it wrote.
    step: seconds that a step of it takes.
    """
    return not (where and where.is_here) and changed > max(SILENT, STEPS * step)


def _remaining(told: Sequence[tuple[JobStatus, Course]], side_by_side: object) -> Remaining:
    """side_by_side: how many jobs the study was last begun with; an older version, or a cluster, may not say."""
    running = sum(job.runs for job, _ in told)
    at_a_time = max(1, running, min(side_by_side, len(told)) if isinstance(side_by_side, int) else 0)
    first = sorted((one for one in told if one[0].state != "failed"), key=lambda one: not one[0].runs)
    return remaining([course for _, course in first], at_a_time)


def _job(run: Path, task: str, arm: str, seed: int, trained: bool, of: int) -> tuple[JobStatus, Course]:
    folder = JobDir.of(run, task, arm, seed)
    metrics = read_steps(folder.metrics, shapes.Step, ended=False)
    fired = alarms(metrics, read_steps(folder.validation, shapes.Validated, ended=False))
    step = metrics[-1]["step"] + 1 if metrics else 0
    place = place_of(folder.path)
    state = _state(folder, step, of, place)
    rate = _rate(metrics) if trained else None
    ended = state in ("done", "failed") or step >= of
    left = (of - step) / rate if rate and not ended else None
    files = [folder.path, *folder.path.glob("*"), *folder.path.glob("tests/*/*")] if folder.path.is_dir() else []
    changed = since(files) if files else None
    where = place.at if place and state in (*RUNS, "killed") else None
    until = time.time() - (0 if state in RUNS or changed is None else changed)
    job = JobStatus(
        task=task,
        arm=arm,
        seed=seed,
        state=state,
        step=step if trained else None,
        of=of if trained else None,
        rate=rate,
        left=left,
        alarms=tuple(map(str, fired)),
        why=read_shaped(folder.failed, shapes.Failed)["error"] if state == "failed" else None,
        where=where,
        changed=changed,
        is_silent=state in RUNS and is_silent(where, changed or 0, 1 / rate if rate else 0),
    )
    return job, Course(task, arm, trained, state == "done", _spent(folder, metrics, place, until), left)


def _state(folder: JobDir, step: int, of: int, place: Place | None) -> State:
    if folder.result.exists():
        return "done"
    if folder.failed.exists():
        return "failed"
    if place and place.ended:
        return place.ended
    if step:
        return "training" if step < of else "testing"
    return "begun" if folder.path.is_dir() else "waiting"


def _rate(metrics: list[Json]) -> float | None:
    """Steps a second, of the last few."""
    seconds = [_seconds(line) for line in metrics[-RECENT:]]
    return len(seconds) / sum(seconds) if sum(seconds) > 0 else None


def _seconds(step: Json) -> float:
    return float(sum(step.get("seconds", {}).values()))


def _spent(folder: JobDir, metrics: list[Json], place: Place | None, until: float) -> float:
    """Seconds that a job was worked on, the try under way until a time, in seconds since 1970; of a folder by an older
    version, those that it has clocks of: steps, and what drawing its tests took."""
    if place:
        return float(place.seconds + (max(0.0, until - place.at.since) if place.at else 0.0))
    drawn = [path for tests in folder.tests() for path in tests.path.glob("sampling-*.json")]
    return sum(map(_seconds, metrics)) + sum(float(read_shaped(path, shapes.Sampling)["seconds"]) for path in drawn)
