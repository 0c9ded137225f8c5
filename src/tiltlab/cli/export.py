"""`tiltlab export`: records for other programs, an arm of a recipe for verl. `tiltlab push`: records on the hub."""

import datetime as dt
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiltlab.cli.output import AsJson, Output, print_note
from tiltlab.errors import UserError
from tiltlab.storage.folder import require_writable


class To(StrEnum):
    """What records can be written as."""

    PARQUET = "parquet"
    DATASETS = "datasets"
    INSPECT = "inspect"
    EVAL_RESULTS = "eval-results"


_NAMES = {
    To.PARQUET: "records.parquet",
    To.DATASETS: "dataset",
    To.INSPECT: "inspect.json",
    To.EVAL_RESULTS: "eval_results.yaml",
}


PLAIN = "records"
"""The command of the plain form, `tiltlab export RECORDS --to FORMAT`. Nobody types its name."""


class _Exports(TyperGroup):
    """What is not `verl RECIPE` is of the plain form."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        another = args[:1] == ["verl"] and "--to" not in args  # a folder of records may be called verl too
        return super().parse_args(ctx, args if another or "--help" in args[:1] else [PLAIN, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == PLAIN else name, command, rest  # as usage tells it


exports = typer.Typer(
    cls=_Exports,
    help="Records as other programs read them: tiltlab export RECORDS --to parquet (datasets, inspect, eval-results). "
    "Or one arm of a recipe for verl.",
)


@exports.command(PLAIN, hidden=True)
def export(
    records: Annotated[Path, typer.Argument(help="A folder of `tiltlab evaluate`, or records.jsonl.")],
    to: Annotated[To, typer.Option(help="parquet, datasets (a folder), inspect (a log), eval-results (for the hub).")],
    out: Annotated[Path | None, typer.Option(help="Where to; beside the records where left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Records as other programs read them."""
    output = Output(as_json)
    path = out or (records if records.is_dir() else records.parent) / _NAMES[to]
    write(records, to, path)
    output.say(f"{to.value}: {path}")
    output.figures({"to": to.value, "path": path})


@exports.command("verl")
def verl(
    recipe: Annotated[str, typer.Argument(help="A YAML recipe.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; new or empty.")],
    arm: Annotated[str | None, typer.Option(help="The arm that verl trains, by name or kind: tilted.")] = None,
    task: Annotated[str | None, typer.Option(help="The task, where the recipe has several.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="On each node.")] = 8,
    seed: Annotated[int | None, typer.Option(help="The recipe's where left out.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of the recipe: train.steps=5")] = None,
    as_json: AsJson = False,
) -> None:
    """One arm of a recipe as verl trains it, over one node or several: settings, data, and the command."""
    from tiltlab.config.recipe import load_recipe
    from tiltlab.verl.export import RUN, Asked, export_verl

    output = Output(as_json)
    plan = load_recipe(recipe, set_ or (), print_note)
    written = export_verl(plan, Asked(arm, task, seed, nodes, gpus), out, print_note)
    output.say(
        f"{written.arm.name}, seed {written.seed}: {out / RUN} trains it on {nodes} x {gpus} GPUs ({out}/README.txt)"
    )
    output.figures({"arm": written.arm.name, "seed": written.seed, "command": out / RUN})


def push(
    records: Annotated[Path, typer.Argument(help="A folder of `tiltlab evaluate`.")],
    repository: Annotated[str, typer.Option(help="OWNER/NAME of a data set on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put records and their page on the Hugging Face hub, as a data set."""
    from tiltlab.export.hub import push as put

    output, folder = Output(as_json), records / _NAMES[To.DATASETS]
    write(records, To.DATASETS, folder)
    if (records / "report.html").is_file():
        shutil.copyfile(records / "report.html", folder / "report.html")
    address = put(folder, repository, private=not public)
    output.say(f"on the hub: {address}")
    output.figures({"address": address})


def exported(folder: Path, formats: Sequence[To], output: Output) -> dict[str, Any]:
    """Records in other formats, each beside them. Returns what --json says of it."""
    for to in formats:
        write(folder, to, folder / _NAMES[to])
        output.say(f"{to.value}: {folder / _NAMES[to]}")
    return {"exported": {to.value: folder / _NAMES[to] for to in formats}} if formats else {}


def write(records: Path, to: To, path: Path) -> None:
    """Records in another format, written to a file or folder.

    records: a file, or the folder that holds it.

    Raises UserError for records that cannot be read, or that the format cannot hold.
    """
    from tiltlab.evaluation.opened import about_records, open_records
    from tiltlab.export.eval_results import write_eval_results
    from tiltlab.export.inspect_log import write_inspect_log
    from tiltlab.export.tables import write_dataset, write_parquet

    read = open_records(records).records
    about = about_records(records)
    recipe, questions = about.get("recipe") or {}, about.get("questions", {})
    model = str((recipe.get("model") or {}).get("path", "unknown"))
    drawn_by = str((recipe.get("sampler") or {}).get("arm", "another engine"))
    made = _when(records)
    match to:
        case To.PARQUET:
            require_writable(path)
            write_parquet(path, read, questions)
        case To.DATASETS:
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is no folder; choose another --out")
            write_dataset(path, read, questions, f"{read[0].task}: {model}, {drawn_by}")
        case To.INSPECT:
            write_inspect_log(path, read, questions, model, recipe, made)
        case To.EVAL_RESULTS:
            write_eval_results(path, read, f"tiltlab, sampler {drawn_by}", made.date())


def _when(records: Path) -> dt.datetime:
    """When the records were written."""
    file = records / "records.jsonl" if records.is_dir() else records
    return dt.datetime.fromtimestamp(file.stat().st_mtime, tz=dt.UTC)
