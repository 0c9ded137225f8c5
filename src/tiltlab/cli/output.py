"""Where a command's results go: a table for people, or its figures as JSON for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tiltlab.cli.progress import errors
from tiltlab.errors import UserError
from tiltlab.system.streams import line, stdout

if TYPE_CHECKING:
    from tiltlab.tasks.base import Task
    from tiltlab.types import Split

Engine = Annotated[str | None, typer.Option(help="What draws: hf, the model itself, or vllm.")]
AsJson = Annotated[bool, typer.Option("--json", help="Figures as one JSON object on stdout, and nothing else there.")]


class Output:
    """What a command has to say.

    as_json: tables and lines go to the error stream, and stdout holds one object.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self.console = errors if as_json else Console(file=stdout)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """A line for people; a part may come with a style of rich's."""
        self.console.print(line(*parts), soft_wrap=True)

    def figures(self, result: Any, **more: Any) -> None:
        """The command's result: written where JSON was asked for, as the tables told it otherwise.

        result: a dataclass or a mapping.
        more: further keys of the object.
        """
        if self._as_json:
            stdout.write(json.dumps(_plain(result) | _plain(more), allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses are objects, and what is no number is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def print_note(note: str) -> None:
    """Write a line to the error stream."""
    errors.print(line(note))


def print_notes(task: "Task", splits: "Sequence[Split]") -> None:
    """Write what the task has to say of its splits. Raises UserError where they cannot be made."""
    from tiltlab.tasks.base import notes_of

    for split in splits:
        for note in notes_of(task, split):
            print_note(f"{task.name}: {note}")


def print_error(error: UserError) -> None:
    """Write each line of an error to the error stream."""
    for said in error.lines:
        errors.print(line(("error:", "bold red"), f" {said}"))


def are_records(name: str) -> bool:
    """Whether a name given for a model is one of responses that were drawn already, by whatever program."""
    from tiltlab.records.recognise import are_responses

    return are_responses(Path(name))
