"""Where the jobs of a run or an evaluation are, from its folder alone, for whoever looks in. Imports no torch."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tiltlab.report.load import about_study
from tiltlab.storage import shapes
from tiltlab.storage.files import Json, whole_lines
from tiltlab.storage.natures import Trained
from tiltlab.storage.run_folder import JobDir
from tiltlab.storage.shapes import or_else, read_shaped, read_shaped_lines, read_steps
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


@dataclass(frozen=True)
class EvaluationStatus:
    """Where an evaluation is.

    task, sampler: by name; no sampler where another engine drew.
    state: whether responses are still to be drawn.
    problems, of: that are drawn, and in all; None where the folder does not say how many.
    responses: drawn.
    left: seconds of drawing left at the rate so far, None where nothing is known.
    changed: seconds since anything was written.
    """

    task: str | None
    sampler: str | None
    state: Literal["begun", "drawing", "done"]
    problems: int
    of: int | None
    responses: int
    left: float | None
    changed: float


def is_evaluation(folder: Path) -> bool:
    """Whether `tiltlab evaluate` wrote a folder."""
    return (folder / "sample.json").is_file() and not (folder / "study.json").exists()


def evaluation_status(folder: Path) -> EvaluationStatus:
    """Where the evaluation in a folder is. Raises UserError for a damaged file."""
    with or_else("put a copy of it back, or remove the folder"):
        about = read_shaped(folder / "sample.json", shapes.Sample)
        lots = read_shaped_lines(folder / "lots.jsonl", shapes.Info, ended=False)
    recipe = about.get("recipe") or {}
    done = "info" in about or not recipe
    responses = len(whole_lines(folder / "records.jsonl"))
    problems = len(about.get("questions", ())) if done else responses // recipe.get("n", 1)
    of = problems if done else about.get("of")
    seconds = sum(lot["seconds"] for lot in lots)
    return EvaluationStatus(
        task=_name(recipe.get("task"), "task"),
        sampler=_name(recipe.get("sampler"), "arm"),
        state="done" if done else "drawing" if lots else "begun",
        problems=problems,
        of=of,
        responses=responses,
        left=seconds * (of - problems) / problems if of and problems and not done else None,
        changed=_since(folder.glob("*.json*")),
    )


def _name(config: Any, kind: str) -> str | None:
    """What a task or a sampler is called, as a recipe has it."""
    given = config if isinstance(config, dict) else {}
    return next((str(given[key]) for key in ("label", "name", kind) if given.get(key)), None)


def status_of(run: Path) -> Status:
    """Where the study in a run folder is. Raises UserError where there is none, or a damaged file."""
    about = about_study(run)
    recipe = about["recipe"]
    numbers = range(recipe["seed"], recipe["seed"] + about["seeds"])
    arms = list(zip(about["arms"], recipe["arms"], strict=True))
    with or_else("remove its job's folder, and the study's command makes it again"):
        jobs = tuple(
            _job(run, task, arm, seed, config["arm"] in get_args(Trained), recipe["train"]["steps"])
            for seed in numbers
            for task in about["data"]
            for arm, config in arms
        )
    return Status(
        recipe["name"],
        jobs,
        _since([run / "study.json", *run.glob("cells/*/*/*/*"), *run.glob("cells/*/*/*/tests/*/*")]),
    )


def _since(files: Iterable[Path]) -> float:
    """Seconds since the newest of some files was written."""
    return max(0.0, time.time() - max(path.stat().st_mtime for path in files))


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
