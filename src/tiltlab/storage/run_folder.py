"""What a study leaves behind: its folders and paths.

    RUN/study.json                          recipe, seeds, versions, commit, command
    RUN/problems.jsonl                      the questions and gold answers of the test split
    RUN/cells/TASK/ARM/seed-S/              one arm of one task with one seed
        metrics.jsonl   select.jsonl        a line a training step; a line an evaluation on the validation split
        checkpoints/step-000040/            weights in the model's own format, state.json, optimizer.safetensors
        records-last.jsonl records-best.jsonl   graded responses on the test split
        records-forecast.jsonl              of the base alone: further responses, for the forecast
        sampling-last.json sampling-best.json   what drawing them took: tokens, seconds, the sampler's notes
        tests/SET/                          records and what drawing took, for each test set but the task's own
        memory.json                         where memory ran out: with how much less a later try begins
        place.json                          where it runs now, and how long it was worked on (place.py)
        result.json                         written last: a job that has it is done
        failed.json                         instead, where it could not be finished: why. The next try removes it

Left out on purpose: how a file is written (files.py, records.py, checkpoints.py), and figures (see report/).
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from tiltlab.errors import UserError, shown
from tiltlab.storage.checkpoints import Checkpoints
from tiltlab.storage.files import read_json, slug


@dataclass(frozen=True)
class JobDir:
    """The files of one job, by path; none of them need be there yet.

    path: of the job's folder.
    """

    path: Path

    @classmethod
    def of(cls, run: Path, task: str, arm: str, seed: int) -> "JobDir":
        """Where a run folder keeps the job of a task and an arm, both by name, and a seed."""
        return cls(run / "cells" / slug(task) / slug(arm) / f"seed-{seed}")

    @property
    def metrics(self) -> Path:
        """A line a training step."""
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        """A line an evaluation on the validation split."""
        return self.path / "select.jsonl"

    @property
    def result(self) -> Path:
        """Written last: a job that has it is done."""
        return self.path / "result.json"

    @property
    def failed(self) -> Path:
        """Why the job could not be finished."""
        return self.path / "failed.json"

    @property
    def memory(self) -> Path:
        """What fits the device's memory, where that once ran out."""
        return self.path / "memory.json"

    def records(self, which: str) -> Path:
        """Graded responses on the test split; `which` is "last", "best" or "forecast"."""
        return self.path / f"records-{which}.jsonl"

    def tokens(self, which: str) -> Path:
        """A few responses token by token; `which` is "last" or "best"."""
        return self.path / f"tokens-{which}.jsonl"

    def sampling(self, which: str) -> Path:
        """What drawing the records took; `which` is "last" or "best"."""
        return self.path / f"sampling-{which}.json"

    def test(self, name: str) -> "JobDir":
        """Where the records of a test set are that is not the task's own, by its name."""
        return JobDir(self.path / "tests" / slug(name))

    def tests(self) -> list["JobDir"]:
        """Folders with records: the job's own, for the task's own test split, and those of the other test sets."""
        return [self, *map(JobDir, sorted(self.path.glob("tests/*")))]

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of an arm that trains."""
        return Checkpoints(self.path / "checkpoints")


def kept_date(about: Path) -> dt.date | None:
    """The day that a run began, of which chat templates are told; None where nobody wrote it down.

    about: its study.json or sample.json, which need not be there.

    Raises UserError for a file that cannot be read, and for a day that is none.
    """
    data = read_json(about) if about.exists() else {}
    date = data.get("date") if isinstance(data, dict) else None
    try:
        return dt.date.fromisoformat(date) if date else None
    except (TypeError, ValueError) as error:
        raise UserError(f"{about}: {shown(date)} is no date such as 2026-02-28") from error
