"""What there is, and how it stands: `tiltlab list`, `tiltlab status`; and `tiltlab study --dry-run`. None writes."""

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
    as_json: AsJson = False,
) -> None:
    """Where each job of a study is (step, rate, time left, alarms), or an evaluation. Reads the folder, and disturbs
    nobody."""
    from tiltlab.report.status import evaluation_status, is_evaluation, status_of
    from tiltlab.report.terminal import print_evaluation_status, print_status

    output = Output(as_json)
    if is_evaluation(run):
        drawn = evaluation_status(run)
        print_evaluation_status(drawn, output.console)
        output.figures(drawn)
    else:
        state = status_of(run)
        print_status(state, output.console)
        output.figures(state)


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
