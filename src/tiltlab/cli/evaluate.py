"""`tiltlab evaluate`: graded responses of one model, or of another engine."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiltlab.cli.export import To, exported
from tiltlab.cli.output import AsJson, Engine, Output, print_note, print_notes
from tiltlab.cli.outside import AtStep, Fields, From, Grades, TokenizerFile, asked
from tiltlab.cli.progress import bars
from tiltlab.errors import UserError
from tiltlab.records.opening import Reading
from tiltlab.storage.files import slug
from tiltlab.storage.folder import alone_in
from tiltlab.system.devices import usable_devices
from tiltlab.system.visible import on_one_line

if TYPE_CHECKING:
    from tiltlab.config.recipe import SampleRecipe
    from tiltlab.evaluation.outside import Asked
    from tiltlab.types import Record


def evaluate(
    recipe: Annotated[str | None, typer.Argument(help="A YAML recipe: model, task, sampler, ...")] = None,
    model: Annotated[str | None, typer.Option(help="A hub id, a folder, or a .gguf file.")] = None,
    task: Annotated[
        str | None, typer.Option(help="lazy-sum, gsm8k, math500, ...; data for a file of your own.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    sampler: Annotated[str | None, typer.Option(help="base, temperature, greedy, ...; see `list samplers`.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Responses a problem.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens a response, at most.")] = None,
    engine: Engine = None,
    reference: Annotated[str | None, typer.Option(help="A second model that scores the responses too.")] = None,
    responses: Annotated[Path | None, typer.Option(help="Grade responses of another program, file or folder.")] = None,
    from_: From = None,
    grades: Grades = None,
    step: AtStep = None,
    fields: Fields = None,
    tokenizer: TokenizerFile = None,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/evaluate-TASK-SAMPLER where left out.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key: sampler.temperature=0.7")] = None,
    export: Annotated[list[To] | None, typer.Option(help="Write them in this format too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Graded responses of a model, with any sampler: records.jsonl, figures with intervals, and a page.

    Stopped or killed, the same command goes on where it was.
    """
    from tiltlab.config.recipe import load_sample_recipe
    from tiltlab.config.tasks import load_task

    output = Output(as_json)
    if responses:
        how = asked((task, data, map_), from_, grades, step, fields, tokenizer)
        of = f"{how.task.name} {responses.stem}" if how.task else responses.stem
        folder = out or Path("runs") / slug(f"evaluate {of}")
        with alone_in(folder):
            output.figures(_grade(responses, how, folder, output) | exported(folder, export or (), output))
        return
    chosen = load_task(task, data, map_) if task or data else None
    keys = changes(model=model, sampler=sampler, n=n, limit=limit, max_tokens=max_tokens, reference=reference)
    plan = _with(load_sample_recipe(recipe, keys + (set_ or []), print_note), chosen, engine)
    folder = out or Path("runs") / slug(f"evaluate {plan.task.name} {plan.sampler.name}")
    with alone_in(folder):
        output.figures(draw(plan, folder, output) | exported(folder, export or (), output))


def _with(plan: "SampleRecipe", task: Any, engine: str | None) -> "SampleRecipe":
    """The plan with what options name in the place of the recipe's."""
    from tiltlab.config.engine import load_engine

    task_named = {"task": task} if task else {}
    engine_named = {"engine": load_engine(engine)} if engine else {}
    return plan.model_copy(update=task_named | engine_named)


_KEYS = {"model": "model.path", "stop": "model.stop", "limit": "problems"}


def changes(**options: Any) -> list[str]:
    """Options as changes to a recipe's keys, as --set takes them.

    options: by name; those that are None were not given. A sampler takes the place of the recipe's with all of its
        keys.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "sampler" in given:
        given["sampler"] = {"arm": given["sampler"]}
    return [f"{_KEYS.get(name, name)}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]


def _grade(responses: Path, how: "Asked", folder: Path, output: Output) -> dict[str, Any]:
    from tiltlab.evaluation.run import from_elsewhere, from_outside
    from tiltlab.records.recognise import is_plain

    if how.task is not None:
        print_notes(how.task, ["test"])
    if how.task is not None and how.grades in (None, "ours") and how.reading == Reading() and is_plain(responses):
        return _tell(folder, from_elsewhere(responses, how.task, folder), output)
    return _tell(folder, from_outside(responses, how, folder), output)


def draw(plan: "SampleRecipe", folder: Path, output: Output) -> dict[str, Any]:
    """Draw what a recipe says, into a folder, and tell of it.

    plan: the recipe.
    folder: held against other processes by the caller.

    Returns the figures, for --json.
    """
    from tiltlab.evaluation.run import run_sample
    from tiltlab.report.terminal import print_sample

    with suppress(UserError):  # told below, with whatever else is wrong
        print_notes(plan.task, [plan.split])
    name = f"{plan.task.name}: {plan.sampler.name}"
    with bars() as shown:
        bar = shown.add_task(on_one_line(name), total=None)
        records, info = run_sample(
            plan,
            folder,
            usable_devices(plan.model.device)[0],
            lambda at: shown.update(
                bar, completed=at.done, total=at.of, description=on_one_line(f"{name}, {at.tokens} tokens")
            ),
            print_note,
        )
    costs = asdict(info)
    tell_costs = partial(print_sample, name, records, costs, output.console)
    return _tell(folder, records, output, tell_costs) | {"sampling": costs}


def _tell(
    folder: Path, records: "Sequence[Record]", output: Output, tell_first: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    from tiltlab.report.evaluation import figures_of, write_evaluation_page
    from tiltlab.report.terminal import print_evaluation

    page, figures = write_evaluation_page(folder), figures_of(folder.name, records)
    tell_first()
    print_evaluation(figures, output.console)
    output.say(f"records: {folder / 'records.jsonl'}")
    output.say(f"report: {page}")
    return asdict(figures) | {"records": folder / "records.jsonl", "page": page}
