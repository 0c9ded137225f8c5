"""Records on the disk: records.jsonl, a line a response, written whole and read back key by key."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from tiltlab.errors import UserError, shown
from tiltlab.storage.files import Json, numbered, write_text
from tiltlab.storage.incoming import parsed, require_count, require_logp, require_number
from tiltlab.types import Reason, Record


def record_line(record: Record) -> Json:
    """A record as a line of records.jsonl.

    What is no finite number (no reward, an unknown log-probability, that of a response which the reference rules out)
    becomes null.
    """
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(record).items()
    }


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records.jsonl whole or not at all. Raises UserError where it cannot be written."""
    write_text(path, "".join(json.dumps(record_line(record)) + "\n" for record in records))


def read_records(path: Path) -> list[Record]:
    """The records of a file, in order; none where there is no file.

    Raises UserError, naming the line, for one that is no record, and for two that are the same sample of a problem.
    """
    records: list[Record] = []
    places: dict[tuple[str, str, int], int] = {}
    for number, line in numbered(path):
        where = f"{path} line {number}"
        record = _record(parsed(line, where), where)
        first = places.setdefault((record.task, record.problem, record.sample), number)
        if first != number:
            raise UserError(
                f"{where} is sample {record.sample} of problem {shown(record.problem)}, as line {first} is; "
                "keep one of the two"
            )
        records.append(record)
    return records


_NUMBER = int | float | None
_KINDS: dict[str, Any] = {
    "task": str,
    "problem": str,
    "sample": int,
    "text": str,
    "answer": str | None,
    "reward": _NUMBER,
    "reason": str,
    "tokens": int,
    "complete": bool,
    "logp": _NUMBER,
    "ref_logp": _NUMBER,
}


def _record(line: Any, where: str) -> Record:
    if not isinstance(line, dict):
        raise UserError(f"{where} is no record: it is not a JSON object")
    if line.keys() != _KINDS.keys():
        missing, unknown = _KINDS.keys() - line.keys(), line.keys() - _KINDS.keys()
        said = [f"it lacks {', '.join(sorted(missing))}"] if missing else []
        said += [f"{shown(', '.join(sorted(unknown)))[1:-1]} is no key of a record"] if unknown else []
        raise UserError(f"{where} is no record: {'; '.join(said)} (docs/records.md)")
    for key, kind in _KINDS.items():
        if not isinstance(line[key], kind) or (isinstance(line[key], bool) and kind is not bool):
            raise UserError(f"{where} is no record: {key} cannot be {shown(line[key])}")
    if line["reason"] not in get_args(Reason):
        raise UserError(f"{where}: reason {shown(line['reason'])} is none of {', '.join(get_args(Reason))}")
    whole = {key: require_count(line[key], f"{where}: {key}") for key in ("sample", "tokens")}
    logps = {key: require_logp(line[key], f"{where}: {key}") for key in ("logp", "ref_logp")}
    return Record(**(line | whole | logps | {"reward": require_number(line["reward"], f"{where}: reward")}))
