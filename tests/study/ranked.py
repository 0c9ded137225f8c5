"""Small jobs as ranks run them. Ranks import this module, so it brings nothing heavy."""

import os
import signal
from pathlib import Path
from typing import Any

from tests.config.test_recipe import SMALL
from tiltlab.config.recipe import Recipe
from tiltlab.study.job import Work
from tiltlab.study.run import do_job
from tiltlab.study.study import plan
from tiltlab.system.world import World

RECIPE = Recipe.model_validate(
    SMALL
    | {
        "arms": [{"arm": "tempered", "alpha": 4}, "base", {"arm": "power_smc", "alpha": 4}],
        "train": {
            "steps": 5,
            "prompts": 3,
            "responses": 3,
            "max_tokens": 8,
            "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        },
        "validation": {"every": 2, "problems": 5, "n": 1},
        "test": {"problems": 5, "n": 2, "forecast_n": 1},
    }
)
TRAINED, BASE, SMC = plan(RECIPE, 1)


def work_of(run: Path, world: World, job: Any = TRAINED, stop: int | None = None) -> Work:
    """stop: after so many reports."""
    told: list[Any] = []
    (folder := job.folder(run)).path.mkdir(parents=True, exist_ok=True)
    return Work(job, RECIPE, folder, lambda *news: told.append(news), lambda: world.of_first(len(told) == stop), world)


def ranked(world: World, run: Path, job: Any = TRAINED, stop: int | None = None) -> None:
    do_job(work_of(run, world, job, stop))


def all_jobs(world: World, run: Path) -> None:
    for job in (TRAINED, BASE, SMC):
        ranked(world, run, job)


def killed_at(world: World, run: Path, syncs: int) -> None:
    """Rank 0 goes, without a word, before it has something on the disk for the so-many-th time."""
    real, seen = os.fsync, [0]

    def sync(handle: int) -> None:
        seen[0] += 1
        if world.is_first and seen[0] == syncs:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = sync
    ranked(world, run)
