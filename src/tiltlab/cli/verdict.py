"""What is told of a reward, a model, or two: `tiltlab check`, `tiltlab forecast`, `tiltlab verdict`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiltlab.cli.evaluate import changes, draw
from tiltlab.cli.output import AsJson, Engine, Output, are_records, print_note, print_notes
from tiltlab.cli.outside import AtStep, Fields, From, Grades, TokenizerFile, asked
from tiltlab.cli.progress import bars, errors
from tiltlab.cli.score import beside_records, served_records
from tiltlab.errors import UserError
from tiltlab.models.server import is_served
from tiltlab.records.opening import Reading
from tiltlab.storage.folder import alone_in, require_writable
from tiltlab.system.devices import usable_devices

if TYPE_CHECKING:
    from tiltlab.verdict.inputs import Examined


def check(
    task: Annotated[str | None, typer.Argument(help="The task: gsm8k, math500, lazy-sum, ...")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    reward: Annotated[str | None, typer.Option(help="A reward of your own: my_pkg.my_mod:fn")] = None,
    model: Annotated[str | None, typer.Option(help="Also draw samples from this model.")] = None,
    engine: Engine = None,
    limit: Annotated[int, typer.Option(min=2, help="Problems.")] = 500,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a sample, at most.")] = 200,
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("check.html"),
    as_json: AsJson = False,
) -> None:
    """Test a reward before any GPU time is used: what it must accept, and what it must not. Exit code 1 if it fails."""
    from tiltlab.config.engine import load_engine
    from tiltlab.config.tasks import load_task
    from tiltlab.engines.make import drawn_by, require_engine
    from tiltlab.evaluation.reward_audit import check as checked
    from tiltlab.evaluation.reward_audit import on_samples
    from tiltlab.models.loading import ModelConfig, load_codec, load_reference
    from tiltlab.report.check import write_check_page
    from tiltlab.report.terminal import print_check
    from tiltlab.rewards.functions import load_reward
    from tiltlab.system.provenance import provenance
    from tiltlab.tasks.base import try_on_gold

    if task is None and data is None:
        raise UserError("name a task to check, or give --data FILE")
    require_writable(out)
    output, chosen, drawer = Output(as_json), load_task(task, data, map_), load_engine(engine)
    require_engine(drawer, *([model] if model else []))
    print_notes(chosen, ["test"])
    problems = chosen.problems("test")[:limit]
    own = load_reward(reward) if reward else None
    if own:
        try_on_gold(own, chosen, "test")
    samples = None
    with errors.status("drawing samples" if model else "probing"):
        if model:
            config = ModelConfig(path=model, device=usable_devices("auto")[0])
            loaded = load_reference(config, load_codec(config))
            with drawn_by(drawer, loaded) as drawing:
                samples = on_samples(drawing, chosen, problems[:64], own, n=8, max_tokens=max_tokens, seed=0)
        audit = checked(chosen, problems, own, samples)
    name = f"{chosen.name}: {reward or 'its own grader'}"
    write_check_page(name, audit, provenance(), out)
    print_check(name, audit, output.console)
    output.say(f"page: {out}")
    output.figures(audit, failures=audit.failures, page=out)
    if audit.failures:
        raise typer.Exit(1)


def forecast(
    base: Annotated[str, typer.Option(help="A model, or records: of `tiltlab evaluate`, of a trainer, of a server.")],
    task: Annotated[str | None, typer.Option(help="The task, where a model is given.")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    n: Annotated[int, typer.Option("-n", min=4, help="Responses a problem.")] = 64,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a response, at most.")] = 200,
    engine: Engine = None,
    from_: From = None,
    grades: Grades = None,
    step: AtStep = None,
    fields: Fields = None,
    tokenizer: TokenizerFile = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/forecast"),
    as_json: AsJson = False,
) -> None:
    """How far would sharpening, and how far would a reward, take this model? Told from its own samples, untrained."""
    from tiltlab.cli.outcome import write_forecast
    from tiltlab.config.engine import load_engine
    from tiltlab.config.recipe import load_sample_recipe
    from tiltlab.config.tasks import load_task
    from tiltlab.report.terminal import print_forecast

    output = Output(as_json)
    drawn = not are_records(base)
    how = None if drawn else asked((task, data, map_), from_, grades, step, fields, tokenizer)
    with alone_in(out):
        if drawn:
            keys = changes(model=base, sampler="base", n=n, limit=limit, max_tokens=max_tokens)
            plan = load_sample_recipe(None, keys)
            chosen = {"task": load_task(task, data, map_)} if task or data else {}
            draw(plan.model_copy(update=chosen | {"engine": load_engine(engine)}), out, output)
            base = str(out)
        result = write_forecast(Path(base), out, how)
    print_forecast(result, output.console)
    output.say(f"page: {out / 'forecast.html'}")
    output.figures(result, page=out / "forecast.html")


def verdict(
    base: Annotated[str, typer.Option(help="A model, or records: of `tiltlab evaluate`, of a trainer, of a server.")],
    tuned: Annotated[str, typer.Option(help="The tuned model, a folder of adapters on the base, or records.")],
    task: Annotated[str | None, typer.Option(help="The task, where models are given: lazy-sum, gsm8k, ...")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    rival: Annotated[list[Path] | None, typer.Option(help="Records of the base, sharpened by a sampler.")] = None,
    n: Annotated[int, typer.Option("-n", min=4, help="Responses a problem.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a response, at most.")] = 200,
    stop: Annotated[str | None, typer.Option(help="A text that ends a response, as in a recipe's model.stop.")] = None,
    engine: Engine = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    from_: From = None,
    grades: Grades = None,
    step: AtStep = None,
    fields: Fields = None,
    tokenizer: TokenizerFile = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/verdict"),
    as_json: AsJson = False,
) -> None:
    """Was the tuned model taught something, or is it the base, sharpened?"""
    from tiltlab.cli.outcome import write_verdict
    from tiltlab.config.engine import load_engine
    from tiltlab.report.terminal import print_verdict
    from tiltlab.verdict.inputs import from_files

    output = Output(as_json)
    drawn = not are_records(base) and not are_records(tuned)
    if drawn and task is None and data is None:
        raise UserError("two models need problems: add --task, --data or both")
    limits = {"n": n, "max_tokens": max_tokens, "seed": seed}
    drawn = drawn and not is_served(base) and not is_served(tuned)
    how = None if drawn else asked((task, data, map_), from_, grades, step, fields, tokenizer)
    with alone_in(out):
        if is_served(base) or is_served(tuned):
            models, sizes = {"base": base, "tuned": tuned}, {"limit": limit, **limits}
            base, tuned = served_records(models, (task, data, map_), sizes, stop, out, output)
        if how and not are_records(base):
            base, tuned = map(str, beside_records(base, Path(tuned), how, stop, out, limits, output))
            how = replace(how, reading=Reading())  # both are tiltlab's own now
        if drawn:
            settings = {"problems": limit, **limits, "engine": load_engine(engine)}
            examined = _examined(base, tuned, (task, data, map_), stop, settings)
        else:
            examined = from_files(Path(base), Path(tuned), rival or (), how)
        result = write_verdict(examined, out, seed, drawn=drawn)
    print_verdict(result, output.console)
    output.say(f"page: {out / 'verdict.html'}")
    output.figures(result, page=out / "verdict.html")


def _examined(
    base: str, tuned: str, task: tuple[str | None, str | None, str | None], stop: str | None, settings: dict[str, Any]
) -> "Examined":
    """What two models draw and say of each other's responses."""
    from tiltlab.config.tasks import load_task
    from tiltlab.models.loading import ModelConfig
    from tiltlab.verdict.inputs import from_models

    config = ModelConfig(path=base, device=usable_devices("auto")[0], stop=stop)
    with bars() as shown:
        bar = shown.add_task("verdict", total=None)
        return from_models(
            config,
            tuned,
            load_task(*task),
            **settings,
            on_progress=lambda what, done, of: shown.update(bar, description=what, completed=done, total=of),
            on_note=print_note,
        )
