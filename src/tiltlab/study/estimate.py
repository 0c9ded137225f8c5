"""What a study would do, before it does it: sizes of splits, tokens at most, and time where a rate is known."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlab.config.recipe import Recipe
from tiltlab.plan.work import counted, tokens_of
from tiltlab.storage import shapes
from tiltlab.storage.files import Json
from tiltlab.storage.shaped import read_shaped, read_shaped_lines
from tiltlab.study.study import check, plan


@dataclass(frozen=True)
class Planned:
    """One job, before it is run.

    task, arm: by name.
    seed: of the job.
    trains: whether the arm trains.
    tokens: that it draws, at most.
    """

    task: str
    arm: str
    seed: int
    trains: bool
    tokens: int


@dataclass(frozen=True)
class Estimate:
    """What a study would do and take.

    name: of the study.
    splits: by task and split, the number of problems, and notes on what was left out.
    jobs: all of them.
    rate: tokens a second that the run folder's own jobs have drawn so far, None where there are none.
    """

    name: str
    splits: dict[str, dict[str, Any]]
    jobs: tuple[Planned, ...]
    rate: float | None

    @property
    def tokens(self) -> int:
        """That all jobs draw, at most."""
        return sum(job.tokens for job in self.jobs)

    @property
    def seconds(self) -> float | None:
        """Of all jobs, one after another, at most; None where no rate is known."""
        return self.tokens / self.rate if self.rate else None


def estimate(recipe: Recipe, run: Path, seeds: int) -> Estimate:
    """What a study would do and take. Writes nothing.

    run: the run folder, which may hold a part of the study already, or not be there.
    seeds: how many.

    Raises UserError, with a line for each, for whatever is wrong with the recipe.
    """
    facts = check(recipe)
    splits = {
        task: {split: {"problems": fact["problems"], "notes": fact.get("notes", [])} for split, fact in of.items()}
        for task, of in facts.items()
    }
    jobs = tuple(
        Planned(
            job.task.name,
            job.arm.name,
            job.seed,
            job.arm.objective() is not None,
            tokens_of(job.arm, recipe, job.task, counted).drawn,
        )
        for job in plan(recipe, seeds)
    )
    return Estimate(recipe.name, splits, jobs, _rate(run))


def _rate(run: Path) -> float | None:
    """Tokens drawn a second by what the run folder holds: training steps with all that they take, and samplers."""
    tokens = seconds = 0.0
    for path in run.glob("cells/*/*/*/metrics.jsonl"):
        for line in read_shaped_lines(path, shapes.Step, ended=False):
            seconds_by_phase = line.get("seconds", {})
            seconds += sum(seconds_by_phase.values())
            tokens += max(line.get("tokens", {}).values(), default=0) if seconds_by_phase else 0
    for path in [*run.glob("cells/*/*/*/sampling-*.json"), *run.glob("cells/*/*/*/tests/*/sampling-*.json")]:
        drawn: Json = read_shaped(path, shapes.Sampling)
        tokens, seconds = tokens + drawn["drawn"], seconds + drawn["seconds"]
    return tokens / seconds if tokens and seconds else None
