"""The command line. It parses, shows progress and says what went wrong; the work is elsewhere."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tiltlab.cli.progress import bars, cells_progress, errors
from tiltlab.errors import Interrupted, Stopped, UserError
from tiltlab.storage.files import read_json, shortened, slug
from tiltlab.storage.folder import alone_in, cannot_write, is_full, require_writable
from tiltlab.system.devices import usable_devices
from tiltlab.system.memory import tune
from tiltlab.system.signals import interrupted_by_signals
from tiltlab.system.streams import line, stdout, steady
from tiltlab.system.visible import on_one_line

if TYPE_CHECKING:
    from tiltlab.config.recipe import Recipe, SampleRecipe
    from tiltlab.study.tracking import Mirror
    from tiltlab.tasks.base import Task
    from tiltlab.types import Record, Split

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Was the model taught something, or only sharpened?",
)
console = Console(file=stdout)


@app.command()
def study(
    recipe: Annotated[str | None, typer.Argument(help="A YAML recipe; the embedded default where left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME where left out.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the recipe's first.")] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells side by side: one a GPU, or 2 on CPU, where left out.")
    ] = None,
    track: Annotated[str | None, typer.Option(help="Also send metrics to trackio, wandb or tensorboard.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of the recipe: train.steps=5")] = None,
) -> None:
    """Train and sample every regime by one procedure, and report them side by side.

    Stopped or killed, the same command goes on where it was.
    """
    from tiltlab.config.recipe import load_recipe
    from tiltlab.study.study import run_study, splits_of

    plan = load_recipe(recipe, set_ or ())
    run = out or Path("runs") / shortened(plan.name)
    devices = usable_devices(plan.model.device)
    on_gpu = devices[0].startswith("cuda")
    for task in plan.tasks:
        _print_notes(task, splits_of(plan))
    mirror = _mirror(track, run, plan) if track else None
    with cells_progress(run, mirror) as on_progress:
        failed = run_study(
            plan,
            run,
            seeds=seeds,
            jobs=jobs or (len(devices) if on_gpu else 2),
            devices=devices,
            on_progress=on_progress,
            on_note=_print_note,
        )
    report(run)
    if failed:
        lasting = all(read_json(cell.folder(run).failed).get("lasting") for cell in failed)
        again = "they would again, so change the recipe" if lasting else "the same command tries them again"
        errors.print(f"{len(failed)} of the study's cells failed (above); {again}")
        raise typer.Exit(1)


@app.command()
def evaluate(
    recipe: Annotated[str | None, typer.Argument(help="A YAML recipe: model, task, sampler, ...")] = None,
    model: Annotated[str | None, typer.Option(help="A hub id, a folder, or a .gguf file.")] = None,
    task: Annotated[
        str | None, typer.Option(help="lazy-sum, gsm8k, math500, ...; data for a file of your own.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    sampler: Annotated[str | None, typer.Option(help="base, temperature, power_smc, beam, ...")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Responses a problem.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens a response, at most.")] = None,
    reference: Annotated[str | None, typer.Option(help="A second model that scores the responses too.")] = None,
    responses: Annotated[Path | None, typer.Option(help="Grade responses of another engine (a JSONL file).")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/evaluate-TASK-SAMPLER where left out.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key: sampler.temperature=0.7")] = None,
) -> None:
    """Graded responses of a model, with any sampler: records.jsonl, figures with intervals, and a page.

    Stopped or killed, the same command goes on where it was.
    """
    from tiltlab.config.recipe import load_sample_recipe
    from tiltlab.config.tasks import load_task

    chosen = load_task(task, data, map_) if task or data or responses else None
    if responses and chosen:
        folder = out or Path("runs") / slug(f"evaluate {chosen.name} {responses.stem}")
        with alone_in(folder):
            _grade(responses, chosen, folder)
        return
    plan = load_sample_recipe(recipe, _evaluation(model, sampler, n, limit, max_tokens, reference) + (set_ or []))
    if chosen:
        plan = plan.model_copy(update={"task": chosen})
    folder = out or Path("runs") / slug(f"evaluate {plan.task.name} {plan.sampler.name}")
    with alone_in(folder):
        _draw(plan, folder)


app.command("sample", help="The same as evaluate, by another name.")(evaluate)


def _grade(responses: Path, task: "Task", folder: Path) -> None:
    from tiltlab.evaluation.run import from_elsewhere

    _print_notes(task, ["test"])
    _tell_evaluation(folder, from_elsewhere(responses, task, folder))


def _draw(plan: "SampleRecipe", folder: Path) -> None:
    from tiltlab.evaluation.run import run_sample
    from tiltlab.report.terminal import print_sample

    _print_notes(plan.task, [plan.split])
    name = f"{plan.task.name}: {plan.sampler.name}"
    with bars() as shown:
        bar = shown.add_task(on_one_line(name), total=None)
        records, info = run_sample(
            plan,
            folder,
            usable_devices(plan.model.device)[0],
            lambda done, of: shown.update(bar, completed=done, total=of),
            _print_note,
        )
    _tell_evaluation(folder, records, lambda: print_sample(name, records, asdict(info), console))


def _tell_evaluation(folder: Path, records: "Sequence[Record]", tell_first: Callable[[], None] = lambda: None) -> None:
    from tiltlab.report.evaluation import figures_of, write_evaluation_page
    from tiltlab.report.terminal import print_evaluation

    page = write_evaluation_page(folder)
    tell_first()
    print_evaluation(figures_of(folder.name, records), console)
    console.print(line(f"records: {folder / 'records.jsonl'}"), soft_wrap=True)
    console.print(line(f"report: {page}"), soft_wrap=True)


def _evaluation(
    model: str | None,
    sampler: str | None,
    n: int | None,
    limit: int | None,
    max_tokens: int | None,
    reference: str | None,
) -> list[str]:
    """Options as changes to a recipe's keys."""
    keys = {
        "model.path": model,
        "sampler.arm": sampler,
        "n": n,
        "problems": limit,
        "max_tokens": max_tokens,
        "reference": reference,
    }
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


@app.command()
def check(
    task: Annotated[str | None, typer.Argument(help="The task: gsm8k, math500, lazy-sum, ...")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    reward: Annotated[str | None, typer.Option(help="A reward of your own: my_pkg.my_mod:fn")] = None,
    model: Annotated[str | None, typer.Option(help="Also draw samples from this model.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="Problems.")] = 500,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a sample, at most.")] = 200,
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("check.html"),
) -> None:
    """Test a reward before any GPU is spent: what it must accept, and what it must not. Exit code 1 if it fails."""
    from tiltlab.config.tasks import load_task
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
    chosen = load_task(task, data, map_)
    _print_notes(chosen, ["test"])
    problems = chosen.problems("test")[:limit]
    own = load_reward(reward) if reward else None
    if own:
        try_on_gold(own, chosen, "test")
    samples = None
    with errors.status("drawing samples" if model else "probing"):
        if model:
            config = ModelConfig(path=model, device=usable_devices("auto")[0])
            loaded = load_reference(config, load_codec(config))
            samples = on_samples(loaded, chosen, problems[:64], own, n=8, max_tokens=max_tokens, seed=0)
        found = checked(chosen, problems, own, samples)
    name = f"{chosen.name}: {reward or 'its own grader'}"
    write_check_page(name, found, provenance(), out)
    print_check(name, found, console)
    console.print(line(f"page: {out}"), soft_wrap=True)
    if found.failures:
        raise typer.Exit(1)


@app.command()
def forecast(
    base: Annotated[str, typer.Option(help="A model, or records.jsonl (or its folder) of `tiltlab evaluate`.")],
    task: Annotated[str | None, typer.Option(help="The task, where a model is given.")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    n: Annotated[int, typer.Option("-n", min=4, help="Responses a problem.")] = 64,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a response, at most.")] = 200,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/forecast"),
) -> None:
    """How far would sharpening, and how far would a reward, carry this model? Told from its own samples, untrained."""
    from tiltlab.cli.outcome import write_forecast
    from tiltlab.config.recipe import load_sample_recipe
    from tiltlab.config.tasks import load_task
    from tiltlab.report.forecast import in_words

    with alone_in(out):
        if not _are_records(base):
            plan = load_sample_recipe(None, _evaluation(base, "base", n, limit, max_tokens, None))
            _draw(plan.model_copy(update={"task": load_task(task, data, map_)}) if task or data else plan, out)
            base = str(out)
        found = write_forecast(Path(base), out)
    console.print(line(f"forecast: {in_words(found)}"))
    console.print(line(f"page: {out / 'forecast.html'}"), soft_wrap=True)


def _are_records(name: str) -> bool:
    return Path(name).suffix == ".jsonl" or (Path(name) / "records.jsonl").is_file()


@app.command()
def verdict(
    base: Annotated[str, typer.Option(help="A model, or records.jsonl (or its folder) of `tiltlab evaluate`.")],
    tuned: Annotated[str, typer.Option(help="The tuned model, a folder of adapters on the base, or records.")],
    task: Annotated[str | None, typer.Option(help="The task, where models are given: lazy-sum, gsm8k, ...")] = None,
    data: Annotated[str | None, typer.Option(help="A file with the task's problems.")] = None,
    map_: Annotated[str | None, typer.Option("--map", help="Its columns: problem=question,answer=final")] = None,
    rival: Annotated[list[Path] | None, typer.Option(help="Records of the base, sharpened by a sampler.")] = None,
    n: Annotated[int, typer.Option("-n", min=4, help="Responses a problem.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems; all of the test split where left out.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a response, at most.")] = 200,
    stop: Annotated[str | None, typer.Option(help="A text that ends a response, as in a recipe's model.stop.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/verdict"),
) -> None:
    """Was the tuned model taught something, or is it the base, sharpened?"""
    from tiltlab.cli.outcome import write_verdict
    from tiltlab.config.tasks import load_task
    from tiltlab.models.loading import ModelConfig
    from tiltlab.verdict.inputs import Examined, from_files, from_models

    def draw() -> Examined:
        chosen = load_task(task, data, map_)
        config = ModelConfig(path=base, device=usable_devices("auto")[0], stop=stop)
        settings: dict[str, Any] = {"problems": limit, "n": n, "max_tokens": max_tokens, "seed": seed}
        with bars() as shown:
            bar = shown.add_task("verdict", total=None)
            return from_models(
                config,
                tuned,
                chosen,
                **settings,
                on_progress=lambda what, done, of: shown.update(bar, description=what, completed=done, total=of),
                on_note=_print_note,
            )

    if not _are_records(base) and task is None and data is None:
        raise UserError("two models need problems: add --task, --data or both")
    with alone_in(out):
        found = from_files(Path(base), Path(tuned), rival or ()) if _are_records(base) else draw()
        judged = write_verdict(found, out, seed, drawn=not _are_records(base))
    console.print(line(("verdict: ", "bold"), (judged.outcome, "bold green")))
    console.print(line(judged.why + (f" What it would take: {judged.needs}." if judged.needs else "")))
    console.print(line(f"page: {out / 'verdict.html'}"), soft_wrap=True)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A folder of `tiltlab study` or `tiltlab evaluate`.")]) -> None:
    """Make the page and the table of a run folder again."""
    from tiltlab.report.evaluation import figures_of, load_evaluation, write_evaluation_page
    from tiltlab.report.load import load_study
    from tiltlab.report.page import analysed, write_analysed
    from tiltlab.report.terminal import print_evaluation, print_tables

    if (run / "sample.json").exists() or (run / "records.jsonl").exists():
        page = write_evaluation_page(run)
        print_evaluation(figures_of(run.name, load_evaluation(run)[0]), console)
    else:
        study = load_study(run)
        rows, found = analysed(study)
        page = write_analysed(run, study, rows, found)
        print_tables(study, rows, found, console)
    console.print(line(f"report: {page}"), soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `tiltlab study`, two or more.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/compare"),
) -> None:
    """Studies side by side: accuracy, differences on the same problems, and what differs between their recipes."""
    from tiltlab.report.compare import compare_runs, write_comparison
    from tiltlab.report.terminal import print_comparison

    with alone_in(out):
        found = compare_runs(runs)
        page = write_comparison(found, out)
    print_comparison(found, console)
    console.print(line(f"page: {page}"), soft_wrap=True)


@app.command()
def lab(
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("lab.html"),
    seeds: Annotated[int, typer.Option(min=2, help="Independent runs for each batch size.")] = 40,
) -> None:
    """What theory demands of sharpening and rewards, shown on languages small enough to enumerate."""
    from tiltlab.lab.lab import run_lab
    from tiltlab.report.lab import write_lab_page
    from tiltlab.report.terminal import print_lab
    from tiltlab.system.provenance import provenance

    require_writable(out)
    with bars() as shown:
        task = shown.add_task("lab", total=None)
        found = run_lab(
            seeds, tell=lambda what, done, total: shown.update(task, description=what, completed=done, total=total)
        )
    results = asdict(found) | {"wrong": found.commitment.wrong()}
    write_lab_page(results, provenance(), out)
    print_lab(results, console)
    console.print(line(f"page: {out}"), soft_wrap=True)


def main() -> None:
    """Entry point: errors of the user's making are one line and exit code 2; a stop by Ctrl-C is exit code 130, one by
    SIGTERM 143 and one by SIGHUP 129."""
    with steady():
        tune()
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, in a file or a pipe, are noise
        try:
            with interrupted_by_signals():
                app()
        except (UserError, OSError) as error:
            if isinstance(error, OSError):
                if not is_full(error):
                    raise
                error = cannot_write(Path(error.filename or "a file"), error)
            errors.print(line(("error:", "bold red"), f" {error}"))
            sys.exit(2)
        except Stopped as stopped:
            errors.print(line(f"{stopped}; the same command goes on from there"))
            sys.exit(128 + stopped.signal)
        except Interrupted as interrupted:
            errors.print("interrupted; the same command goes on from the last checkpoint")
            sys.exit(128 + interrupted.signal)


def _mirror(kind: str, run: Path, plan: "Recipe") -> "Mirror":
    """Raises UserError for a tracker that is not there."""
    from tiltlab.study.tracking import Mirror

    return Mirror(kind, run, plan.name, plan.model_dump(mode="json"), lambda text: errors.print(line(text)))


def _print_notes(task: "Task", splits: "Sequence[Split]") -> None:
    """What the task has to say of its splits. Raises UserError where they cannot be made."""
    from tiltlab.tasks.base import notes_of

    for split in splits:
        for note in notes_of(task, split):
            _print_note(f"{task.name}: {note}")


def _print_note(note: str) -> None:
    errors.print(line(note))
