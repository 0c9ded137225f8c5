"""`tiltlab study`, and what is made of run folders: `report`, `compare`; and `lab`, which needs none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tiltlab.cli.look import dry_run
from tiltlab.cli.output import AsJson, Output, print_note, print_notes
from tiltlab.cli.progress import bars, errors, jobs_progress
from tiltlab.errors import UserError, gathered
from tiltlab.storage.files import read_json, shortened
from tiltlab.storage.folder import alone_in, require_writable
from tiltlab.system import process_pool
from tiltlab.system.devices import apart, cores_each, places_for, settle, usable_devices
from tiltlab.system.process_pool import Pool
from tiltlab.system.ray_pool import on_ray
from tiltlab.system.streams import line
from tiltlab.system.torchrun import Standing, ranks_started, standing

if TYPE_CHECKING:
    from tiltlab.config.recipe import Recipe
    from tiltlab.study.job import Job
    from tiltlab.study.tracking import Mirror


def study(
    recipe: Annotated[str | None, typer.Argument(help="A YAML recipe; the embedded default where left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME where left out.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the recipe's first.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Jobs side by side; where left out, as many as there are GPUs for, or 2 on CPU."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus-per-run", min=1, help="GPUs of each job, one rank on each; what the recipe says, or 1."),
    ] = None,
    track: Annotated[str | None, typer.Option(help="Also send metrics to trackio, wandb or tensorboard.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of the recipe: train.steps=5")] = None,
    on: Annotated[
        str | None,
        typer.Option(help="ray, for the Ray cluster of RAY_ADDRESS or of this machine; or ray://HEAD:10001."),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done and what it takes; write nothing.")
    ] = False,
) -> None:
    """Train and sample every regime by one procedure, and report them side by side.

    Stopped or killed, the same command goes on where it was.
    """
    from tiltlab.config.recipe import load_recipe

    plan = load_recipe(recipe, [*(set_ or ()), *_ranks_asked(gpus, jobs, dry, on)], print_note)
    run = out or Path("runs") / shortened(plan.name)
    if dry:
        dry_run(plan, run, seeds, Output())
        return
    with (
        _place(on, plan, run, jobs) as place,
        standing(apart(place.first), partial(settle, cores_each(plan.gpus))) as ranks,
    ):
        if ranks and not ranks.world.is_first:
            ranks.follow()
            return
        failed = _run(plan, run, seeds, place, track, ranks)
    report(run)
    _tell_failed(failed, run)


def _run(
    plan: "Recipe", run: Path, seeds: int, place: "Place", track: str | None, ranks: Standing | None
) -> "Sequence[Job]":
    """Run a study, telling what there is to tell. Returns the jobs that failed."""
    from tiltlab.study.study import run_study, splits_of, taught

    for task in taught(plan):
        for needed in splits_of(plan, task):
            with suppress(UserError):  # told below, with whatever else is wrong
                print_notes(needed.task, [needed.split])
    mirror = _mirror(track, run, plan) if track else None
    with jobs_progress(run, mirror) as on_progress:
        return run_study(
            plan,
            run,
            seeds=seeds,
            jobs=1 if ranks else place.jobs,
            devices=place.devices,
            on_progress=on_progress,
            on_note=print_note,
            launch=ranks.run if ranks else None,
            pool=place.pool,
        )


class Place(NamedTuple):
    """Where a study runs.

    pool: what runs its jobs.
    jobs: side by side.
    devices: that they take turns on.
    first: the devices of one job, as `places_for` has them.
    """

    pool: Pool
    jobs: int
    devices: list[str]
    first: str


@contextmanager
def _place(on: str | None, plan: "Recipe", run: Path, jobs: int | None) -> Iterator[Place]:
    """This machine, or a cluster. Raises UserError where it cannot be had."""
    if on is None:
        devices = _devices(plan)
        places = places_for(plan.gpus, devices)
        jobs = jobs or (len(places) if devices[0].startswith("cuda") else max(1, 2 // plan.gpus))
        yield Place(process_pool, jobs, devices, places[0])
        return
    with on_ray(on, run, device=plan.model.device, ranks=plan.gpus, jobs=jobs) as pool:
        yield Place(pool, pool.room, pool.devices, places_for(plan.gpus, pool.devices)[0])


def _ranks_asked(gpus: int | None, jobs: int | None, dry: bool, on: str | None) -> list[str]:
    """What is to change in the recipe for the number of ranks that the command line asks for, or torchrun has started.

    Raises UserError for what does not go with torchrun.
    """
    started = ranks_started()
    if started and (dry or on or (jobs or 1) > 1 or (gpus or started) != started):
        raise UserError(
            f"torchrun has started {started} ranks for one job at a time: leave out --jobs, "
            "--gpus-per-run, --on and --dry-run, or torchrun"
        )
    ranks = started or gpus
    return [f"gpus={ranks}"] if ranks else []


def _tell_failed(failed: "Sequence[Job]", run: Path) -> None:
    """Exits with code 1 where jobs failed."""
    if failed:
        lasting = all(read_json(job.folder(run).failed).get("lasting") for job in failed)
        again = "they would again, so change the recipe" if lasting else "the same command tries them again"
        errors.print(f"{len(failed)} of the study's jobs failed (above); {again}")
        raise typer.Exit(1)


def _devices(plan: "Recipe") -> list[str]:
    """Raises UserError where the recipe's is not there, and for whatever else is wrong with the recipe."""
    from tiltlab.study.study import check

    wrong: list[str] = []
    with gathered(wrong):
        return usable_devices(plan.model.device)
    with gathered(wrong):
        check(plan)
    raise UserError(*wrong)


def _mirror(kind: str, run: Path, plan: "Recipe") -> "Mirror":
    """Raises UserError for a tracker that is not there."""
    from tiltlab.study.tracking import Mirror

    return Mirror(kind, run, plan.name, plan.model_dump(mode="json"), lambda text: errors.print(line(text)))


def report(run: Annotated[Path, typer.Argument(help="A folder of `tiltlab study` or `tiltlab evaluate`.")]) -> None:
    """Make the page and the table of a run folder again."""
    from tiltlab.report.evaluation import figures_of, load_evaluation, write_evaluation_page
    from tiltlab.report.load import load_study
    from tiltlab.report.page import analysed, write_analysed
    from tiltlab.report.terminal import print_evaluation, print_tables

    output = Output()
    if (run / "sample.json").exists() or (run / "records.jsonl").exists():
        page = write_evaluation_page(run)
        print_evaluation(figures_of(run.name, load_evaluation(run)[0]), output.console)
    else:
        study = load_study(run)
        rows, findings = analysed(study)
        page = write_analysed(run, study, rows, findings)
        print_tables(study, rows, findings, output.console)
    output.say(f"report: {page}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `tiltlab study`, two or more.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/compare"),
    as_json: AsJson = False,
) -> None:
    """Studies side by side: accuracy, differences on the same problems, and what differs between their recipes."""
    from tiltlab.report.compare import compare_runs, write_comparison
    from tiltlab.report.terminal import print_comparison

    output = Output(as_json)
    with alone_in(out):
        comparison = compare_runs(runs)
        page = write_comparison(comparison, out)
    print_comparison(comparison, output.console)
    output.say(f"page: {page}")
    told = {
        "runs": comparison.runs,
        "sides": comparison.sides,
        "differing": comparison.differing,
        "notes": comparison.notes,
    }
    output.figures(told, page=page)


def lab(
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("lab.html"),
    seeds: Annotated[int, typer.Option(min=2, help="Independent runs for each batch size.")] = 40,
) -> None:
    """What theory demands of sharpening and rewards, shown on languages small enough to enumerate."""
    from tiltlab.lab.lab import run_lab
    from tiltlab.report.lab import write_lab_page
    from tiltlab.report.terminal import print_lab
    from tiltlab.system.provenance import provenance

    output = Output()
    require_writable(out)
    with bars() as shown:
        task = shown.add_task("lab", total=None)
        outcome = run_lab(
            seeds, tell=lambda what, done, total: shown.update(task, description=what, completed=done, total=total)
        )
    results = asdict(outcome) | {"wrong": outcome.commitment.wrong()}
    write_lab_page(results, provenance(), out)
    print_lab(results, output.console)
    output.say(f"page: {out}")
