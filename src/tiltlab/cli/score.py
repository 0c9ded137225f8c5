"""`tiltlab score`: log-probabilities of responses that exist, under a model of one's own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiltlab.cli.output import AsJson, Output, print_note
from tiltlab.cli.outside import AtStep, Fields, From, Grades, TokenizerFile, asked
from tiltlab.cli.progress import bars
from tiltlab.errors import UserError, shown
from tiltlab.models.server import is_served
from tiltlab.storage.files import slug
from tiltlab.storage.folder import alone_in
from tiltlab.system.devices import usable_devices

if TYPE_CHECKING:
    from tiltlab.evaluation.opened import Opened
    from tiltlab.evaluation.outside import Asked
    from tiltlab.evaluation.score import Of, Scored
    from tiltlab.models.hf import HFModel
    from tiltlab.tasks.base import Task


def score(
    records: Annotated[list[Path], typer.Argument(help="Files or folders, of tiltlab or any other program.")],
    model: Annotated[str, typer.Option(help="That scores: a hub id, a folder, or a .gguf file.")],
    of: Annotated[
        Literal["base", "own", "both"],
        typer.Option("--as", help="The model is their base (fills ref_logp), the one that drew them (logp), or both."),
    ] = "base",
    task: Annotated[str | None, typer.Option(help="The task, where the records' folder does not say.")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    stop: Annotated[str | None, typer.Option(help="A text that ends a response, as in a recipe's model.stop.")] = None,
    from_: From = None,
    grades: Grades = None,
    step: AtStep = None,
    fields: Fields = None,
    tokenizer: TokenizerFile = None,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/score-MODEL-RECORDS where left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Log-probabilities of responses that another program drew, from their tokens, or from their text.

    Stopped or killed, the same command goes on where it was.
    """
    from tiltlab.models.loading import ModelConfig, load_codec, load_reference

    output = Output(as_json)
    if is_served(model):
        raise UserError("a server tells log p of its own responses alone; name the weights that it serves as --model")
    config = ModelConfig(path=model, device=usable_devices("auto")[0], stop=stop)
    loaded: HFModel = load_reference(config, load_codec(config))
    how, told = asked((task, data, map_), from_, grades, step, fields, tokenizer), {}
    for path in records:
        folder = _folder(out, path, model, alone=len(records) == 1)
        with alone_in(folder):
            result = scored(loaded, path, folder, of, *opened_with_task(path, how))
        output.say(f"{path}: {said(result)}")
        output.say(f"records: {folder / 'records.jsonl'}")
        told[str(path)] = {"records": folder / "records.jsonl", "faults": result.faults, "of": len(result.records)}
    output.figures({"model": model, "scored": told})


def scored(model: "HFModel", path: Path, folder: Path, of: "Of", opened: "Opened", task: "Task") -> "Scored":
    """Records with their log-probabilities under a model, written to a folder.

    path: of the records.
    of: what the model is to them.
    opened: the records, and what is known of them.
    task: whose problems they answer.

    Raises UserError for records that cannot be scored.
    """
    from tiltlab.evaluation.score import responses_to
    from tiltlab.evaluation.score import score as fill
    from tiltlab.storage.run_folder import kept_date

    date = kept_date(path / "sample.json") if path.is_dir() else None
    if date:
        model.codec = replace(model.codec, date=date)
    responses, source = responses_to(task, opened.split, opened.records, opened.ids, str(path))
    for note in model.codec.notes([responses[0].prompt]):
        print_note(note)
    with bars() as live:
        bar = live.add_task(f"scoring {path}", total=len(responses))
        return fill(model, opened.records, responses, of, folder, source, lambda done: live.update(bar, completed=done))


def beside_records(
    base: str,
    tuned: Path,
    how: "Asked",
    stop: str | None,
    out: Path,
    settings: dict[str, int],
    output: Output,
) -> tuple[Path, Path]:
    """What a verdict on records takes of their base model: its own responses to the same problems, and the records
    with their log-probabilities under it. Returns the folders of both, within `out`.

    how: to take files of other programs; its task counts where the records' folder names none.
    settings: n, max_tokens and seed of the base's responses.

    Raises UserError for records or a model that cannot be used.
    """
    from tiltlab.models.loading import ModelConfig, load_codec, load_reference

    opened, task = opened_with_task(tuned, how)
    ids = [problem.id for problem in task.problems(opened.split)]
    wanted = {record.problem for record in opened.records}
    last = max((i for i, name in enumerate(ids, start=1) if name in wanted), default=0)
    config = ModelConfig(path=base, device=usable_devices("auto")[0], stop=stop)
    model: HFModel = load_reference(config, load_codec(config))
    result = scored(model, tuned, out / "tuned", "base", opened, task)
    output.say(f"{tuned}: {said(result)}")
    del model
    _draw(task, out / "base", output, model=base, stop=stop, split=opened.split, limit=last, **settings)
    return out / "base", out / "tuned"


def served_records(
    models: Mapping[str, str],
    task: tuple[str | None, str | None, str | None],
    settings: Mapping[str, int | None],
    stop: str | None,
    out: Path,
    output: Output,
) -> tuple[str, ...]:
    """What models on servers draw, as folders of records within `out`, in the order of the models; what is on no server
    stays as it is named.

    models: by what they are called. settings: limit, n, max_tokens and seed. stop: a text that ends responses, which
        no server takes.

    Raises UserError for a server that cannot be used.
    """
    from tiltlab.config.tasks import load_task

    named = []
    for what, model in models.items():
        folder = out / f"{what}-drawn"
        if is_served(model):
            _draw(load_task(*task), folder, output, model=model, stop=stop or None, **settings)
        named.append(str(folder) if is_served(model) else model)
    return tuple(named)


def _draw(task: "Task", folder: Path, output: Output, **options: Any) -> None:
    """What a model draws for itself, to a folder.

    options: of `changes`: the model, and how much is drawn.
    """
    from tiltlab.cli.evaluate import changes, draw
    from tiltlab.config.recipe import load_sample_recipe

    plan = load_sample_recipe(None, changes(sampler="base", **options))
    draw(plan.model_copy(update={"task": task}), folder, output)


def opened_with_task(path: Path, how: "Asked") -> "tuple[Opened, Task]":
    """Records, and the task that they or the options name. Raises UserError where neither does, and
    where they answer other questions."""
    from tiltlab.evaluation.opened import open_records

    opened = open_records(path, how, "last" if how.step is None else how.step)
    chosen = how.task or opened.task
    if chosen is None:
        raise UserError(f"{path} does not say what its problems are; name their task by --task, or --data")
    for problem in chosen.problems(opened.split):
        if problem.id in opened.problems and opened.problems[problem.id].question != problem.question:
            raise UserError(
                f"{path} answers another question {shown(problem.id)} than task {chosen.name} asks now; name the task "
                "and the data that it answers"
            )
    return opened, chosen


def _folder(out: Path | None, path: Path, model: str, *, alone: bool) -> Path:
    name = path.parent.name if path.name == "records.jsonl" else path.stem
    if out is None:
        return Path("runs") / slug(f"score {Path(model).name} {name}")
    return out if alone else out / slug(name)


def said(result: "Scored") -> str:
    """How many responses were scored, and why the others were not."""
    few = {
        "text": "whose tokens, made of the text, give back another text",
        "length": "that were drawn as another number of tokens than their text makes",
        "empty": "that hold no token",
    }
    lost = sum(result.faults.values())
    said = f"{len(result.records) - lost} of {len(result.records)} responses scored"
    if result.by_ids:
        said += f", {result.by_ids} by the token ids of the file"
    return said + "".join(f"; {count} {few[fault]} have no log p" for fault, count in result.faults.items())
