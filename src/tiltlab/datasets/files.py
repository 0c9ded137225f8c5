"""Rows of a data file: JSONL, JSON, Parquet or CSV, told apart by the end of the name.

Every reader yields (where, row): where is what a message calls the row, row maps columns to plain values. Cells of a
CSV file are texts; an empty one counts as missing, as null does. Rows of nothing but empty cells are blank lines.

Left out on purpose: compressed files, other separators than a comma, and streaming. A set of problems fits in memory.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError, words
from tiltlab.storage.incoming import decoded, numbered_lines, parsed, require_whole

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]


def is_file(name: str) -> bool:
    """Whether a source of problems is named as one of the files that can be read."""
    return Path(name).suffix.lower() in _READERS


def read_rows(path: str) -> Rows:
    """Every row of a file. Raises UserError, naming file and line or row, for what cannot be read."""
    yield from _READERS[Path(path).suffix.lower()](path)


def read_objects(path: str) -> Rows:
    """Every line of a JSONL file, however it is named. Raises UserError, naming the line, for what is no object."""
    for number, line in numbered_lines(_text(path)):
        where = f"{path} line {number}"
        yield where, object_of(parsed(line, where, "it needs one JSON object a line"), where)


def _jsonl(path: str) -> Rows:
    for where, row in read_objects(path):
        require_whole(row, where)
        yield where, row


def _json_list(path: str) -> Rows:
    """A JSON file that holds a list of objects; many that are named so hold one object a line instead."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        yield from _jsonl(path)
        return
    for i, row in enumerate(parsed(text, f"data file {path}", "it needs a list of JSON objects"), start=1):
        require_whole(row, f"{path} row {i}")
        yield f"{path} row {i}", object_of(row, f"{path} row {i}")


def _csv(path: str) -> Rows:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    lines = (cells for cells in reader if any(cell.strip() for cell in cells))
    try:
        header = next(lines, [])
        if len(set(header)) < len(header):
            raise UserError(f"data file {path} has two columns of one name; its header is {', '.join(header)[:200]}")
        for i, cells in enumerate(lines, start=1):
            where = f"{path} row {i}"
            if len(cells) != len(header):
                raise UserError(
                    f"{where} (up to line {reader.line_num}) has {len(cells)} cells and the header {len(header)}; "
                    "put quotes around a cell that holds a comma or a line break"
                )
            yield where, {column: cell or None for column, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error})") from error


def _parquet(path: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO(_bytes(path))
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: text that is not
        # UTF-8, dates that Python cannot hold
        raise UserError(f"data file {path} cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error
    for i, row in enumerate(rows, start=1):
        yield f"{path} row {i}", row


_READERS: dict[str, Callable[[str], Rows]] = {
    ".jsonl": _jsonl,
    ".json": _json_list,
    ".parquet": _parquet,
    ".csv": _csv,
}


def _text(path: str) -> str:
    return decoded(_bytes(path), path)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"data file {path} does not exist") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home for ~; ValueError: a null in the path
        raise UserError(f"data file {path} cannot be read: {words(error)}") from error


def object_of(row: Any, where: str) -> Row:
    """A row as it stands. Raises UserError for what is no JSON object.

    where: what a message calls the row.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where} holds a {type(row).__name__}, not a JSON object")
    return row
