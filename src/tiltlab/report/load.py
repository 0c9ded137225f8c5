"""A run folder as plain values. What is missing (a study still running) is simply not there."""

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


@dataclass(frozen=True)
class ArmOnTask:
    """All seeds of one arm on one task. `config` is the arm as the recipe has it."""

    task: str
    name: str
    config: Json
    seeds: list[Seeded]

    @property
    def trained(self) -> bool:
        return self.config["arm"] not in ("base", "temperature")


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

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(arm.task for arm in self.arms))

    def on(self, task: str) -> list[ArmOnTask]:
        return [arm for arm in self.arms if arm.task == task]

    def base(self, task: str) -> ArmOnTask | None:
        """The untouched model at temperature 1, which everything is compared with."""
        return next((arm for arm in self.on(task) if arm.config["arm"] == "base"), None)


def load_study(run: Path) -> Study:
    """Read a run folder. Raises UserError where it holds no study, or no finished cell."""
    if not (run / "study.json").exists():
        raise UserError(f"{run} holds no study: there is no study.json in it")
    about = read_json(run / "study.json")
    recipe = about["recipe"]
    arms, missing = [], 0
    for task in about["data"]:
        for config, name in zip(recipe["arms"], about["arms"], strict=True):
            folders = [
                CellDir(run / "cells" / slug(task) / slug(name) / f"seed-{recipe['seed'] + i}")
                for i in range(about["seeds"])
            ]
            done = [_seeded(folder, recipe["seed"] + i) for i, folder in enumerate(folders) if folder.result.exists()]
            missing += len(folders) - len(done)
            if done:
                arms.append(ArmOnTask(task, name, config, done))
    problems = {(line["task"], line["id"]): line for line in read_lines(run / "problems.jsonl")}
    if not arms:
        raise UserError(f"{run} holds no finished cell yet")
    return Study(recipe["name"], recipe, about["made"], about["data"], about["seeds"], arms, problems, missing)


def _seeded(folder: CellDir, seed: int) -> Seeded:
    result: dict[str, Any] = read_json(folder.result)
    last = read_records(folder.records("last"))
    best = read_records(folder.records("best")) if folder.records("best").exists() else last
    steps = {"last": result["step"], "best": result["best_step"]} if result["trained"] else None
    return Seeded(seed, last, best, steps, read_lines(folder.metrics), read_lines(folder.select))
