"""JSON files read through their shapes (shapes.py): one that is damaged, or of another make, is told by its name, line
and key before anything is computed from it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tiltlab.errors import UserError
from tiltlab.storage.files import Json, read_json, read_lines, require_end
from tiltlab.system.visible import on_one_line


@contextmanager
def or_else(todo: str) -> Iterator[None]:
    """Add what to do (`todo`) to a UserError that the block raises about a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {todo}") from error


def read_shaped(path: Path, shape: type[BaseModel]) -> Json:
    """A JSON file of this shape, as it is. Raises UserError, naming file and key, for any other."""
    return _checked(read_json(path), shape, str(path))


def read_shaped_lines(path: Path, shape: type[BaseModel], *, ended: bool = True) -> list[Json]:
    """A JSONL file whose lines are of this shape, as they are; none where there is no file.

    ended: nobody writes it any more, so that a last line without its end is a damage too.

    Raises UserError, naming line and key, for any other.
    """
    if ended:
        require_end(path)
    lines = read_lines(path)
    return [_checked(line, shape, f"{path} line {number}") for number, line in enumerate(lines, start=1)]


def read_steps(path: Path, shape: type[BaseModel], *, ended: bool = True) -> list[Json]:
    """`read_shaped_lines` of lines whose steps rise; UserError, naming the line, where they do not."""
    lines = read_shaped_lines(path, shape, ended=ended)
    for number, (before, line) in enumerate(pairwise(lines), start=2):
        if line["step"] <= before["step"]:
            raise UserError(f"{path} line {number}: step {line['step']} comes after step {before['step']}")
    return lines


def _checked(data: Any, shape: type[BaseModel], where: str) -> Json:
    if not isinstance(data, dict):
        raise UserError(f"{where} is not a JSON object")
    try:
        shape.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where} {_first(error)}") from error
    return data


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))[:80]
    if detail["type"] == "missing":
        return on_one_line(f"has no {key}")
    if detail["type"] == "value_error" and not key:
        return f"cannot be used: {detail['ctx']['error']}"
    return on_one_line(f"cannot have {key} = {str(detail['input'])[:40]!r}: {detail['msg']}")
