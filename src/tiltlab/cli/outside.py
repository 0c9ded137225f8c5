"""Options for files of other programs, which every command that takes records has."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltlab.cli.output import print_note
from tiltlab.records.opening import Reading
from tiltlab.records.recognise import FormatName

if TYPE_CHECKING:
    from tiltlab.evaluation.outside import Asked

From = Annotated[
    FormatName | None, typer.Option("--from", help="Which program wrote the records; told from the file otherwise.")
]
Grades = Annotated[
    str | None,
    typer.Option(help="ours: graded by the task; theirs, or theirs:NAME: the file's own. Ours where a task is named."),
]
AtStep = Annotated[
    int | None, typer.Option("--step", help="Of dumps of many steps, the one; the base's first, the tuned one's last.")
]
Fields = Annotated[
    str | None,
    typer.Option(help="Fields of plain JSONL: text=response,prompt=question; the same as --map without --data."),
]
TokenizerFile = Annotated[
    Path | None, typer.Option("--tokenizer", help="Its tokenizer.json or folder, for records of token ids and no text.")
]


def asked(
    task: tuple[str | None, str | None, str | None],
    form: FormatName | None,
    grades: str | None,
    step: int | None,
    fields: str | None,
    tokenizer: Path | None,
) -> "Asked":
    """How files of other programs are to be taken, as the options say; notes go to the error stream.

    task: --task, --data and --map, which without a data file is of the records' own fields.
    """
    from tiltlab.config.tasks import load_task
    from tiltlab.evaluation.outside import Asked

    name, data, columns = task
    chosen = load_task(name, data, columns if data else None) if name or data else None
    reading = Reading(form, fields or (None if data else columns), tokenizer)
    return Asked(reading, chosen, grades, step, print_note)
