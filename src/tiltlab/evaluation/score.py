"""Records + a model -> a folder with the same records, their log-probabilities under that model filled in.

    records.jsonl   the records, to be read by whatever reads records
    scores.jsonl    the tokens of each response and the log-probability of each
    sample.json     how they were made

Responses are done some at a time, and each lot is on the disk before the next begins: stopped or killed, the same
command goes on where it was.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

from tiltlab.errors import UserError, shown
from tiltlab.evaluation.scoring import Response, Scores, scores
from tiltlab.models.hf import HFModel
from tiltlab.models.retokenize import Fault
from tiltlab.storage import shapes
from tiltlab.storage.files import Json, append_lines, keep_first, make_folder, whole_lines, write_json
from tiltlab.storage.records import write_records
from tiltlab.storage.shaped import or_else, read_shaped
from tiltlab.storage.token_ids import TokenIds
from tiltlab.system.provenance import provenance
from tiltlab.tasks.base import Task
from tiltlab.types import Problem, Record, Split

Of = Literal["base", "own", "both"]
"""What the model is to the records: the base (its log p is `ref_logp`), the one that drew them (`logp`), or both."""


@dataclass(frozen=True)
class Scored:
    """What scoring came to.

    records: with their log-probabilities, in the order that they came in.
    faults: how many responses have none, by what is wrong with their tokens.
    by_ids: how many were scored by token ids of their file, and not by their text.
    """

    records: list[Record]
    faults: dict[Fault, int]
    by_ids: int


def score(
    model: HFModel,
    records: Sequence[Record],
    responses: Sequence[Response],
    of: Of,
    folder: Path,
    source: Json,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Score, write, or go on.

    records, responses: the same, in the same order.
    of: what the model is to them.
    folder: what was scored before in it is kept; the caller holds it against other processes.
    source: what sample.json is to say of where they come from (`questions` among it).
    on_progress: told how many responses are done.

    Raises UserError for a folder that holds something else, and for a response that the model has no room for.
    """
    make_folder(folder)
    wanted = {"model": model.codec.name, "fingerprint": model.fingerprint(), "of": of}
    about = _about(folder, wanted | {"responses": _digest(model, records, responses)})
    order = _by_problem(records)
    path = folder / "scores.jsonl"
    done = _done(path, [records[i] for i in order])
    write_json(folder / "sample.json", source | about)
    on_progress(done)
    at = done
    for lot in scores(model, [responses[i] for i in order[done:]]):
        some = [records[i] for i in order[at : at + len(lot)]]
        append_lines(path, [_line(record, told) for record, told in zip(some, lot, strict=True)])
        at += len(lot)
        on_progress(at)
    lines = whole_lines(path)
    told = dict(zip(order, lines, strict=True))
    filled = [_filled(record, told[i], of) for i, record in enumerate(records)]
    faults = Counter(line["fault"] for line in lines if line["fault"])
    write_json(folder / "sample.json", source | about | {"faults": dict(faults)})
    write_records(folder / "records.jsonl", filled)
    by_ids = sum(bool(r.ids) and told[i]["ids"] == list(r.ids) for i, r in enumerate(responses))
    return Scored(filled, dict(faults), by_ids)


def responses_to(
    task: Task, split: Split, records: Sequence[Record], ids: TokenIds, named: str
) -> tuple[list[Response], Json]:
    """The records as responses to the prompts of a task, and what sample.json says of their problems.

    ids: token ids by problem and sample, as far as they are known.
    named: what messages call the records.

    Raises UserError for a record of another task, or whose problem the task does not have.
    """
    problems = {problem.id: problem for problem in task.problems(split)}
    for record in records:
        if record.task != task.name:
            raise UserError(
                f"{named} holds responses to task {shown(record.task)}, and task {task.name} may ask others by the "
                "same ids; name the task that the records are of by --task"
            )
        if record.problem not in problems:
            raise UserError(
                f"{named}: {shown(record.problem)} is no problem of task {task.name}'s {split} split; name the task "
                "that the records are of by --task"
            )
    asked: Mapping[str, Problem] = {record.problem: problems[record.problem] for record in records}
    prompts = {name: task.render(problem) for name, problem in asked.items()}
    responses = [
        Response(prompts[r.problem], r.text, r.complete, r.tokens, ids.get((r.problem, r.sample), ())) for r in records
    ]
    return responses, {"questions": {name: [p.question, p.answer] for name, p in asked.items()}}


def _about(folder: Path, wanted: Json) -> Json:
    """What sample.json says of the scores. Raises UserError for a folder that holds others."""
    file = folder / "sample.json"
    if not file.exists():
        if whole_lines(folder / "records.jsonl"):
            raise UserError(f"{folder} holds records, and no sample.json that says of what; choose another --out")
        return {"scored": wanted, "made": provenance()}
    with or_else("put a copy of it back, or choose another --out"):
        before = read_shaped(file, shapes.Sample)
    if before.get("scored") != wanted:
        raise UserError(f"{folder} holds other records than these, or scores of another model; choose another --out")
    return {"scored": wanted, "made": before["made"]}


def _digest(model: HFModel, records: Sequence[Record], responses: Sequence[Response]) -> str:
    """SHA-256 of what is scored, as it is scored: after which prompt and by which tokens; hexadecimal."""
    digest = hashlib.sha256(repr(model.codec.stop).encode(errors="replace"))
    for record, response in zip(records, responses, strict=True):
        digest.update(repr((record.task, record.problem, record.sample, response)).encode(errors="replace"))
    return digest.hexdigest()


def _by_problem(records: Sequence[Record]) -> list[int]:
    """Numbers of the records, those of one problem beside each other, problems in the order that they came in."""
    first: dict[tuple[str, str], int] = {}
    for i, record in enumerate(records):
        first.setdefault((record.task, record.problem), i)
    return sorted(range(len(records)), key=lambda i: (first[records[i].task, records[i].problem], i))


def _done(path: Path, records: Sequence[Record]) -> int:
    """How many responses are scored on the disk; what was half written is dropped."""
    kept = 0
    for line, record in zip(whole_lines(path), records, strict=False):
        whole = {"ids", "logprobs", "fault", "logp"} <= line.keys()
        if not whole or (line.get("problem"), line.get("sample")) != (record.problem, record.sample):
            break
        kept += 1
    keep_first(path, kept)
    return kept


def _line(record: Record, told: Scores) -> Json:
    logprobs = [round(value, 7) for value in told.logprobs]
    known: dict[str, Any] = asdict(told) | {"logprobs": logprobs, "logp": None if isnan(told.logp) else told.logp}
    return {"problem": record.problem, "sample": record.sample} | known


def _filled(record: Record, line: Json, of: Of) -> Record:
    logp = nan if line["logp"] is None else line["logp"]
    tokens = record.tokens or (0 if line["fault"] else len(line["ids"]))
    if of == "own":
        return replace(record, logp=logp, tokens=tokens)
    return replace(record, ref_logp=logp, logp=logp if of == "both" else record.logp, tokens=tokens)
