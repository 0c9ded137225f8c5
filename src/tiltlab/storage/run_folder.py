"""What a study leaves behind, and how it is written so that nothing half-written is ever read.

    RUN/study.json                          recipe, seeds, versions, commit, command
    RUN/problems.jsonl                      the questions and gold answers of the test split
    RUN/cells/TASK/ARM/seed-S/              one arm of one task with one seed
        metrics.jsonl   select.jsonl        a line a training step; a line an evaluation on the select split
        checkpoints/step-000040/            weights in the model's own format, state.json, optimizer.safetensors
        records-last.jsonl records-best.jsonl   graded responses on the test split
        records-forecast.jsonl              of the base alone: further responses, for the forecast
        sampling-last.json sampling-best.json   what drawing them took: tokens, seconds, the sampler's notes
        result.json                         written last: a cell that has it is done
        failed.json                         instead, where it could not be finished: why. The next try removes it

A whole file or folder appears under its name in one rename, after it is complete; of a file that grows line by line, a
last line that was not written to its end is left out.

Left out on purpose: figures (see report/). This module imports no torch.
"""

import datetime as dt
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import Any, get_args

from tiltlab.errors import UserError
from tiltlab.storage.folder import FREE, cannot_write, is_full, said
from tiltlab.storage.incoming import decoded, numbered_lines, parsed, require_count, require_logp, require_number, shown
from tiltlab.types import Reason, Record

Json = dict[str, Any]

LONGEST = 120
"""Bytes of a name on disk: most file systems take 255, some 143, and names grow by what is put before and behind."""


@dataclass(frozen=True)
class CellDir:
    """The files of one cell."""

    path: Path

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def select(self) -> Path:
        return self.path / "select.jsonl"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def failed(self) -> Path:
        return self.path / "failed.json"

    def records(self, which: str) -> Path:
        """`which` is "last", "best" or "forecast"."""
        return self.path / f"records-{which}.jsonl"

    def tokens(self, which: str) -> Path:
        return self.path / f"tokens-{which}.jsonl"

    def sampling(self, which: str) -> Path:
        return self.path / f"sampling-{which}.json"

    @property
    def checkpoints(self) -> "Checkpoints":
        return Checkpoints(self.path / "checkpoints")


@dataclass(frozen=True)
class Checkpoints:
    """Folders step-N, each complete from the moment it is there."""

    path: Path

    def step(self, step: int) -> Path:
        return self.path / f"step-{step:06d}"

    def state(self, step: int) -> Path:
        return self.step(step) / "state.json"

    def optimizer(self, step: int) -> Path:
        return self.step(step) / "optimizer.safetensors"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        folders = (folder for folder in self.path.glob("step-*") if folder.name[5:].isdecimal() and folder.is_dir())
        return sorted(int(folder.name[5:]) for folder in folders)

    @contextmanager
    def new(self, step: int, bytes_needed: int) -> Iterator[Path]:
        """An empty folder to fill; it becomes step-N when the block ends, or vanishes if the block fails.

        Raises UserError where the disk has no room for it; checkpoints that are there already stay.
        """
        make_folder(self.path)
        target, part = self.step(step), self.path / f"part-{step:06d}"
        shutil.rmtree(part, ignore_errors=True)
        kept = f"the checkpoint of step {self.steps()[-1]} is kept" if self.steps() else "there is none before it"
        free = shutil.disk_usage(self.path).free
        if free < bytes_needed:
            raise UserError(
                f"no room for the checkpoint of step {step} in {self.path}: it takes {_size(bytes_needed)} and "
                f"{_size(free)} are free ({kept}); {FREE}"
            )
        try:
            part.mkdir()
            yield part
            _sync(*part.rglob("*"), part)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            _sync(self.path)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            cause = error.__cause__ if isinstance(error, UserError) else error
            if isinstance(cause, OSError) or is_full(cause):
                todo = FREE if is_full(cause) else "make that possible and give the same command again"
                raise UserError(
                    f"the checkpoint of step {step} could not be written to {self.path} ({said(cause)}; {kept}); {todo}"
                ) from error
            raise

    def keep(self, steps: Iterable[int]) -> None:
        """Remove all checkpoints but these, and what an interrupted save has left."""
        wanted = {self.step(step).name for step in steps}
        for folder in self.path.iterdir() if self.path.is_dir() else ():
            if folder.name not in wanted:
                shutil.rmtree(folder)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(data, indent=1, allow_nan=True) + "\n")


def read_json(path: Path) -> Json:
    """Raises UserError for a file that cannot be read, or is not JSON."""
    found: Json = parsed(_text(path), str(path))
    return found


def kept_date(about: Path) -> dt.date | None:
    """The day that a run began, of which chat templates are told, from its study.json or sample.json; None where there
    is no such file, or one without a day. Raises UserError for one that cannot be read."""
    data = read_json(about) if about.exists() else {}
    found = data.get("date") if isinstance(data, dict) else None
    try:
        return dt.date.fromisoformat(found) if found else None
    except (TypeError, ValueError) as error:
        raise UserError(f"{about}: {str(found)[:40]!r} is no date such as 2026-02-28") from error


def _text(path: Path) -> str:
    try:
        return decoded(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def read_lines(path: Path) -> list[Json]:
    """All whole lines of a JSONL file; none where there is no file. A last line that was cut off is left out.

    Raises UserError, naming the line, for one that is not JSON.
    """
    return [parsed(line, f"{path} line {number}") for number, line in _numbered(path)]


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line but blank ones. A last line without a line break counts where it is a whole object:
    no part of one is."""
    text = decoded(_bytes(path), path)
    lines = list(numbered_lines(text))
    ended = text.rstrip(" \t\r").endswith("\n")
    return lines if ended or not lines or whole_object(lines[-1][1]) else lines[:-1]


def whole_object(line: str | bytes) -> Json | None:
    """The JSON object that a line holds, None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def whole_lines(path: Path) -> list[Json]:
    """The lines of a JSONL file up to the first that is cut short or damaged; none where there is no file."""
    lines: list[Json] = []
    for line in _bytes(path).removesuffix(b"\n").split(b"\n"):
        if not (found := whole_object(line)):
            break
        lines.append(found)
    return lines


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all; one that is like that already is left alone."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if _bytes(path) != text.encode():
        write_text(path, text)


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """`append_lines` for one."""
    append_lines(path, [data])


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a JSONL file and wait until they are on the disk. Raises UserError where they cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def keep_first(path: Path, count: int) -> None:
    """Keep only so many lines of a JSONL file, and none that is not whole."""
    write_lines(path, whole_lines(path)[:count])


def record_line(record: Record) -> Json:
    """A record as a line of records.jsonl: what is no number (no reward, an unknown log-probability, that of a response
    which the reference rules out) becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(record).items()
    }


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records.jsonl whole or not at all."""
    write_text(path, "".join(json.dumps(record_line(record)) + "\n" for record in records))


def read_records(path: Path) -> list[Record]:
    """Raises UserError, naming the line, for one that is no record, and for two of one problem's samples alike."""
    records: list[Record] = []
    places: dict[tuple[str, str, int], int] = {}
    for number, line in _numbered(path):
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


def slug(label: str) -> str:
    """A label as a folder name: letters, digits, dots and dashes; a long one is cut, and told apart by a hash."""
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in label.lower()).strip(".") or "-"
    name = re.sub(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", r"\1-", name)  # devices to some systems
    return shortened(name, label)


def shortened(name: str, label: str | None = None) -> str:
    """A name as it is, or where it is too long for a folder its beginning, and a hash of the label it stands for."""
    if len(os.fsencode(name)) <= LONGEST:
        return name
    whole = hashlib.sha256((label or name).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{os.fsencode(name)[: LONGEST - 17].decode('utf-8', 'ignore')}-{whole}"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Half a surrogate pair, which UTF-8 has no bytes for, is written out.

    Raises UserError where it cannot be written.
    """
    make_folder(path.parent)
    begins = path.name[:40]
    part = path.with_name(f"{begins}.{secrets.token_hex(4)}.{os.getpid()}.part")  # others may be writing the same file
    try:
        _clear_parts(path.parent, begins)
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:  # half a character: its number
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            part.unlink()
        raise cannot_write(path, error) from error


def _clear_parts(folder: Path, begins: str) -> None:
    """Remove what writers that were killed have left of a file."""
    for part in folder.glob(f"{escape(begins)}.*.*.part"):
        process = part.name.split(".")[-2]
        if process.isdecimal() and not _is_running(int(process)):
            part.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def make_folder(path: Path) -> None:
    """Make a folder, and those above it. Raises UserError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def _sync(*paths: Path) -> None:
    """Wait until files and folders are on the disk: after a power cut, a rename may otherwise outlive its files."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count > 1e9 else f"{count / 1e6:.1f} MB"
