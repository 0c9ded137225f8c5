"""A run folder as plain values. What is missing (a study still running) is simply not there; what failed is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError
from tiltlab.rundir import CellDir, Json, read_json, read_lines, read_records, slug
from tiltlab.types import Record


@dataclass(frozen=True)
class Seeded:
    """One arm on one task with one seed. `best` is the records of the best checkpoint, the same as `last` where that is
    the best; `steps` tells which steps the two are of, None for an arm that is not trained."""

    seed: int
    last: list[Record]
    best: list[Record]
    steps: dict[str, int] | None
    metrics: list[Json]
    select: list[Json]
    sampling: Json
    """Of the last checkpoint: tokens drawn and rescored, seconds, responses, notes and warnings."""
    sampling_best: Json
    tokens: list[Json]
    """Of the last checkpoint: the first response to some problems, token by token (tiltlab.tokens.TokenLine)."""
    more: list[Record]
    """Further responses of the base, for the forecast; of no other arm."""
    stopped: str | None
    """The alarm that ended its training before the last step of the recipe."""


@dataclass(frozen=True)
class ArmOnTask:
    """All seeds of one arm on one task. `config` is the arm as the recipe has it."""

    task: str
    name: str
    config: Json
    seeds: list[Seeded]

    @property
    def trained(self) -> bool:
        return self.seeds[0].steps is not None

    @property
    def own_law(self) -> bool:
        """Whether its samples are of its model's own law, temperature 1. Records know log-probabilities at temperature
        1 only, so of any other law they cannot say how far it is from the base."""
        uncut = self.config.get("top_p", 1) == 1 and self.config.get("top_k") is None
        plain = self.config["arm"] == "temperature" and self.config["temperature"] == 1 and uncut
        return self.trained or self.config["arm"] == "base" or plain

    @property
    def knows_kl(self) -> bool:
        """Whether its samples say how far it is from the base: those of its model's own law do, and those of PowerSMC,
        which estimates the Z of its law."""
        return self.own_law or self.config["arm"] == "power_smc"


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished, and its curves up to there."""

    task: str
    arm: str
    config: Json
    seed: int
    error: str
    metrics: list[Json]
    select: list[Json]

    def __str__(self) -> str:
        return f"{self.task} / {self.arm} / seed {self.seed}: {self.error}"


@dataclass(frozen=True)
class Study:
    """A study: for each task its arms, in the recipe's order."""

    name: str
    recipe: Json
    made: list[Json]
    data: Json
    seeds: int
    arms: list[ArmOnTask]
    problems: dict[tuple[str, str], Json]
    """Question and gold answer by (task, problem id)."""
    missing: int
    failed: list[Failure]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(arm.task for arm in self.arms))

    @property
    def configs(self) -> dict[str, Json]:
        """Each arm of which there is anything, by name, as the recipe has it and in its order."""
        found = {arm.name: arm.config for arm in self.arms} | {cell.arm: cell.config for cell in self.failed}
        return dict(sorted(found.items(), key=lambda arm: self.recipe["arms"].index(arm[1])))

    def on(self, task: str) -> list[ArmOnTask]:
        return [arm for arm in self.arms if arm.task == task]

    def base(self, task: str) -> ArmOnTask | None:
        """The untouched model at temperature 1, which everything is compared with."""
        return next((arm for arm in self.on(task) if arm.config["arm"] == "base"), None)


def load_study(run: Path) -> Study:
    """Read a run folder. Raises UserError where it holds no study, or no finished cell."""
    about = _about(run)
    recipe, seeds = about["recipe"], range(about["recipe"]["seed"], about["recipe"]["seed"] + about["seeds"])
    arms: list[ArmOnTask] = []
    failed: list[Failure] = []
    missing = 0
    for task in about["data"]:
        for config, name in zip(recipe["arms"], about["arms"], strict=True):
            cells = {seed: CellDir(run / "cells" / slug(task) / slug(name) / f"seed-{seed}") for seed in seeds}
            done = {seed: cell for seed, cell in cells.items() if cell.result.exists()}
            broken = {seed: cell for seed, cell in cells.items() if seed not in done and cell.failed.exists()}
            missing += len(cells) - len(done) - len(broken)
            failed += [_failure(cell, task, name, config, seed) for seed, cell in broken.items()]
            if done:
                arms.append(ArmOnTask(task, name, config, [_seeded(cell, seed) for seed, cell in done.items()]))
    problems = {(line["task"], line["id"]): line for line in read_lines(run / "problems.jsonl")}
    if not arms:
        why = f"; failed: {failed[0]}" if failed else " yet"
        raise UserError(f"{run} holds no finished cell{why}")
    return Study(recipe["name"], recipe, about["made"], about["data"], about["seeds"], arms, problems, missing, failed)


def _about(run: Path) -> Json:
    """study.json. Raises UserError where there is none, or one of something else."""
    path = run / "study.json"
    if not run.is_dir():
        raise UserError(f"{run} is a file, not a run folder" if run.exists() else f"{run} does not exist")
    if not path.exists():
        raise UserError(f"{run} holds no study: there is no study.json in it")
    about = read_json(path)
    if not (isinstance(about, dict) and {"recipe", "arms", "seeds", "data", "made"} <= about.keys()):
        raise UserError(f"{run} holds no study: its study.json is not one of tiltlab's")
    return about


def _seeded(folder: CellDir, seed: int) -> Seeded:
    try:
        return _read(folder, seed)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder.path} is damaged: {error!r}; remove it, and the study's command makes it again"
        ) from error


def _read(folder: CellDir, seed: int) -> Seeded:
    result: dict[str, Any] = read_json(folder.result)
    last = read_records(folder.records("last"))
    if not last:
        raise KeyError("records-last.jsonl holds no record")
    best = read_records(folder.records("best")) if folder.records("best").exists() else last
    steps = {"last": result["step"], "best": result["best_step"]} if result["trained"] else None
    sampling = read_json(folder.sampling("last"))
    of_best = read_json(folder.sampling("best")) if folder.sampling("best").exists() else sampling
    curves = read_lines(folder.metrics), read_lines(folder.select)
    if any("step" not in line for lines in curves for line in lines):
        raise KeyError("a line of metrics.jsonl or select.jsonl has no step")
    tokens = read_lines(folder.tokens("last"))
    if any(not {"problem", "logp", "ref_logp", "ranks", "pieces"} <= line.keys() for line in tokens):
        raise KeyError("a line of tokens-last.jsonl lacks a key")
    more = read_records(folder.records("forecast")) if folder.records("forecast").exists() else []
    return Seeded(seed, last, best, steps, *curves, sampling, of_best, tokens, more, result.get("stopped"))


def _failure(folder: CellDir, task: str, arm: str, config: Json, seed: int) -> Failure:
    error = " ".join(str(read_json(folder.failed)["error"]).split())
    return Failure(task, arm, config, seed, error, read_lines(folder.metrics), read_lines(folder.select))
