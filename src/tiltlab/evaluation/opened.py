"""Records of any file or folder, tiltlab's own or another program's, and what is known of how they came about.

Left out on purpose: what is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from tiltlab.config.tasks import Task as AnyTask
from tiltlab.errors import UserError
from tiltlab.evaluation.outside import Asked, read_outside
from tiltlab.records.opening import Step
from tiltlab.records.recognise import is_own
from tiltlab.storage.files import require_end
from tiltlab.storage.records import read_records
from tiltlab.storage.shaped import or_else, read_shaped
from tiltlab.storage.shapes import Told
from tiltlab.storage.token_ids import TokenIds, read_ids
from tiltlab.tasks.base import LenientReading, Task, grade_texts
from tiltlab.types import UNKNOWN, Problem, Record, Split


@dataclass(frozen=True)
class Opened:
    """Records, and what is known of them.

    problems: by id, as far as they are known.
    task: whose problems they answer; None where nobody says.
    split: of the task.
    ids: token ids of responses by problem and sample, as far as they are known.
    graded: whether the task graded them.
    """

    records: list[Record]
    problems: dict[str, Problem]
    task: Task | None
    split: Split
    ids: TokenIds = field(default_factory=dict)
    graded: bool = True

    def with_records(self, change: Callable[[Sequence[Record]], list[Record]]) -> Self:
        """The same with other records of the same responses."""
        return replace(self, records=change(self.records))


def open_records(path: Path, asked: Asked | None = None, step: Step = "last") -> Opened:
    """Records as `tiltlab evaluate` writes them, a file of another program, or a folder that holds either.

    asked: how files of other programs are to be taken, and the task where a folder does not say it.
    step: whose responses are taken, where a file of another program holds those of several.

    Raises UserError, naming file and row, for what cannot be read, and for a file or folder that holds none.
    """
    asked = asked or Asked()
    if asked.reading.form is None and is_own(path):
        return _own(path, asked.task)
    told = read_outside(path, asked, step)
    return Opened(
        told.records,
        told.problems,
        asked.task,
        told.split,
        {(r.problem, r.sample): sample.ids for r, sample in zip(told.records, told.samples, strict=True) if sample.ids},
        graded=asked.task is not None and (asked.grades or "ours") == "ours",
    )


def _own(path: Path, task: Task | None) -> Opened:
    about, records = about_records(path), _read(path)
    recipe, questions = about.get("recipe") or {}, about.get("questions", {})
    with or_else("remove it, and responses are taken from their text"):
        ids = read_ids(path / "ids.jsonl") if path.is_dir() else {}
    problems = {name: Problem(name, *both) for name, both in questions.items()}
    return Opened(records, problems, _task_of(recipe) or task, recipe.get("split", "test"), ids)


def _task_of(recipe: Mapping[str, Any]) -> Task | None:
    try:
        task: Task = TypeAdapter(AnyTask).validate_python(recipe.get("task"))
    except ValidationError:
        return None
    return task


def told_leniently(opened: Opened) -> list[Record] | None:
    """The records graded leniently by the task that graded them; None where nobody says which did."""
    if opened.task is None or not opened.graded:
        return None
    return read_leniently(opened.task, opened.problems, opened.records)


def read_leniently(task: Task, problems: Mapping[str, Problem], records: Sequence[Record]) -> list[Record] | None:
    """The same records, of which those that ended without an answer where the task reads one are graded by what they
    say elsewhere; None for a task that does not read otherwise.

    problems: by id; what answers others stays.
    """
    lenient = task.lenient() if isinstance(task, LenientReading) else None
    if lenient is None:
        return None
    unread = [i for i, r in enumerate(records) if r.complete and r.reason == "no_answer" and r.problem in problems]
    texts = [records[i].text for i in unread]
    grades = grade_texts(lenient, [problems[records[i].problem] for i in unread], texts)
    again = list(records)
    for i, grade in zip(unread, grades, strict=True):
        if grade.reason not in UNKNOWN:
            again[i] = replace(records[i], answer=grade.answer, reward=grade.reward, reason=grade.reason)
    return again


def about_records(path: Path) -> dict[str, Any]:
    """sample.json of a folder, empty where there is none. Raises UserError for a damaged one."""
    if not (path.is_dir() and (path / "sample.json").is_file()):
        return {}
    with or_else("put a copy of it back, or name its records.jsonl alone"):
        return read_shaped(path / "sample.json", Told)


def _read(path: Path) -> list[Record]:
    file = path / "records.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    with or_else("put a copy of it back, or have `tiltlab evaluate` make it again"):
        require_end(file)
        records = read_records(file)
        if not records:
            raise UserError(f"{file} holds no records")
    return records
