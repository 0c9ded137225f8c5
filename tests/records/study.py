"""Records as a study leaves them, of which the truth is known, and what each format keeps of them."""

import json
from dataclasses import dataclass, replace
from functools import cache
from math import nan
from pathlib import Path

from tests.planted.catalogue import PLANTS
from tests.planted.mixtures import RIGHT
from tiltlab.config.tasks import load_task
from tiltlab.tasks.base import Task
from tiltlab.types import Problem, Record

PROBLEMS, SAMPLES = 60, 8


def question(name: str) -> str:
    return f"A crate holds {int(name) + 3} jars of 7 plums each. How many plums are in crate {name}?"


def gold(name: str) -> int:
    return 7 * (int(name) + 3)


@cache
def drawn(plant: str) -> tuple[list[Record], list[Record]]:
    """Base and tuned of a planted truth, 60 problems x 8, whose answers are numbers."""
    planted = next(one for one in PLANTS if one.name == plant).make(0, problems=PROBLEMS, n=SAMPLES)  # type: ignore[call-arg]
    return _worded(planted.base), _worded(planted.tuned)


def _worded(records: list[Record]) -> list[Record]:
    others: dict[str, int] = {}
    return [_said(record, others) for record in records]


def _said(record: Record, others: dict[str, int]) -> Record:
    if record.answer is None:
        return replace(record, text=f"I cannot say. ({record.logp:.4f})")
    wrong = 1000 + others.setdefault(record.answer, len(others))
    answer = str(gold(record.problem) if record.answer == RIGHT else wrong)
    return replace(record, answer=answer, text=f"({record.logp:.4f}) So there are \\boxed{{{answer}}}.")


def written_task(folder: Path) -> Task:
    """The problems as a data file, and the task of it."""
    file = folder / "problems.jsonl"
    rows = [{"id": str(i), "problem": question(str(i)), "answer": str(gold(str(i)))} for i in range(PROBLEMS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_task(f"{{task: data, grader: number, name: t, test: {file}}}")


def problems() -> dict[str, Problem]:
    return {str(i): Problem(str(i), question(str(i)), str(gold(str(i)))) for i in range(PROBLEMS)}


@dataclass(frozen=True)
class Kept:
    """What a format keeps of records."""

    ends: bool = False
    tokens: bool = False
    logp: bool = False
    ref_logp: bool = False

    def of(self, records: list[Record]) -> list[Record]:
        """The records without what is not kept, as they are to be read."""
        lengths = [record.tokens if self.tokens else len(record.text) for record in records]
        return [
            replace(
                record,
                complete=record.complete if self.ends else self._seems_ended(record, length, max(lengths)),
                tokens=record.tokens if self.tokens else 0,
                logp=record.logp if self.logp else nan,
                ref_logp=record.ref_logp if self.ref_logp else nan,
            )
            for record, length in zip(records, lengths, strict=True)
        ]

    def _seems_ended(self, record: Record, length: int, longest: int) -> bool:
        return length < longest or (not self.tokens and record.answer is not None)
