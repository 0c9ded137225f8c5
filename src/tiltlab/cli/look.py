"""What there is, and how it stands: `tiltlab list`, `tiltlab status`; and `tiltlab study --dry-run`. None writes."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltlab.cli.output import AsJson, Output

if TYPE_CHECKING:
    from tiltlab.config.recipe import Recipe


def list_(
    what: Annotated[Literal["arms", "samplers", "tasks"], typer.Argument(help="What to list.")],
    as_json: AsJson = False,
) -> None:
    """What a recipe can name, with its keys and what they are where left out."""
    from tiltlab.config.offered import offered

    output, entries = Output(as_json), offered(what)
    for entry in entries:
        output.say((entry.name, "bold"), f": {entry.says}")
        keys = (f"{key}: {_as_yaml(value)}" for key, value in entry.keys.items())
        output.say("    " + (", ".join(keys) or "no keys"))
    output.figures({what: [asdict(entry) for entry in entries]})


def _as_yaml(value: object) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value)) or (
        repr(value) if isinstance(value, str) and not value.startswith("(") else str(value)
    )


def status(
    run: Annotated[Path, typer.Argument(help="A folder of `tiltlab study` or `tiltlab evaluate`, finished or not.")],
    watch: Annotated[bool, typer.Option("--watch", help="Tell it again and again, until all is done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Which job of a study is where (machine, device, step, rate, time left, alarms), or how far an evaluation is.

    Reads the folder, and disturbs nobody.
    """
    output = Output(as_json)
    while _tell_status(run, output, clear=watch) and watch:
        time.sleep(EVERY)


EVERY = 5.0
"""Seconds between two looks at a folder that is watched."""


def _tell_status(run: Path, output: Output, *, clear: bool) -> bool:
    """Whether anything is left to do. `clear`: take what a terminal shows away first."""
    from tiltlab.report.evaluation_status import EvaluationStatus, evaluation_status, is_evaluation
    from tiltlab.report.status import status_of
    from tiltlab.report.status_lines import print_evaluation_status, print_status

    state = evaluation_status(run) if is_evaluation(run) else status_of(run)
    if clear:
        output.console.clear()
    if isinstance(state, EvaluationStatus):
        print_evaluation_status(state, output.console)
    else:
        print_status(state, output.console)
    output.figures(state)
    return not state.is_over


def dry_run(recipe: "Recipe", run: Path, seeds: int, output: Output) -> None:
    """Tell what a study would do, and write nothing.

    recipe: of the study.
    run: its run folder, which need not be there.
    seeds: how many.
    """
    from tiltlab.report.terminal import print_estimate
    from tiltlab.study.estimate import estimate

    planned = estimate(recipe, run, seeds)
    print_estimate(planned, output.console)
    output.figures(planned, tokens=planned.tokens, seconds=planned.seconds)
