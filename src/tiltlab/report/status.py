"""Where the jobs of a run are, from its folder alone: for whoever looks in while it runs. Imports no torch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tiltlab.report.load import about_study
from tiltlab.storage import shapes
from tiltlab.storage.files import Json
from tiltlab.storage.run_folder import JobDir
from tiltlab.storage.shapes import or_else, read_shaped, read_steps
from tiltlab.training.alarms import alarms

RECENT = 10
"""Steps that tell how long the next ones take."""

State = Literal["waiting", "begun", "training", "testing", "done", "failed"]


@dataclass(frozen=True)
class JobStatus:
    """Where one job is.

    task, arm: by name.
    seed: of the job.
    state: whether it waits, runs, is done or has failed.
    step, of: training steps done and in all; None for arms that do not train.
    rate: steps a second of late, None where nothing is known.
    left: seconds of training left at that rate, None where nothing is known.
    alarms: that fired, one line each.
    why: a job failed.
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


@dataclass(frozen=True)
class Status:
    """Where a study is.

    name: of the study.
    jobs: all of them, seed by seed.
    changed: seconds since anything was written.
    """

    name: str
    jobs: tuple[JobStatus, ...]
    changed: float


def status_of(run: Path) -> Status:
    """Where the study in a run folder is. Raises UserError where there is none, or a damaged file."""
    about = about_study(run)
    recipe = about["recipe"]
    numbers = range(recipe["seed"], recipe["seed"] + about["seeds"])
    arms = list(zip(about["arms"], recipe["arms"], strict=True))
    with or_else("remove its job's folder, and the study's command makes it again"):
        jobs = tuple(
            _job(run, task, arm, seed, config["arm"] in get_args(shapes.Trained), recipe["train"]["steps"])
            for seed in numbers
            for task in about["data"]
            for arm, config in arms
        )
    newest = max(path.stat().st_mtime for path in (run / "study.json", *run.glob("cells/*/*/*/*")))
    return Status(recipe["name"], jobs, max(0.0, time.time() - newest))


def _job(run: Path, task: str, arm: str, seed: int, trained: bool, of: int) -> JobStatus:
    folder = JobDir.of(run, task, arm, seed)
    metrics = read_steps(folder.metrics, shapes.Step, ended=False)
    fired = alarms(metrics, read_steps(folder.validation, shapes.Validated, ended=False))
    step = metrics[-1]["step"] + 1 if metrics else 0
    state = _state(folder, step, of)
    why = read_shaped(folder.failed, shapes.Failed)["error"] if state == "failed" else None
    if not trained:
        return JobStatus(task, arm, seed, state, why=why)
    rate = _rate(metrics)
    left = (of - step) / rate if rate and state == "training" else None
    return JobStatus(task, arm, seed, state, step, of, rate, left, tuple(map(str, fired)), why)


def _state(folder: JobDir, step: int, of: int) -> State:
    if folder.result.exists():
        return "done"
    if folder.failed.exists():
        return "failed"
    if step:
        return "training" if step < of else "testing"
    return "begun" if folder.path.is_dir() else "waiting"


def _rate(metrics: list[Json]) -> float | None:
    """Steps a second, of the last few."""
    seconds = [sum(line.get("seconds", {}).values()) for line in metrics[-RECENT:]]
    return len(seconds) / sum(seconds) if sum(seconds) > 0 else None
