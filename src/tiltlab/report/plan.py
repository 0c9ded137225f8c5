"""A plan, for people: what is held, whether it fits, how long it takes."""

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console

from tiltlab.plan.outcome import Plan, gigabytes
from tiltlab.plan.shapes import Device, Part, Phase
from tiltlab.report.console import new_table, print_whole
from tiltlab.system.streams import line


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan: the model; memory by part, phase by phase; tokens, FLOPs, time, disk; what was assumed."""
    shape = plan.shape
    trained = f", {shape.trained / 1e6:.1f} M of them adapters that train" if shape.adapters else ""
    sizes = f"{shape.parameters / 1e9:.3g} B weights{trained} ({plan.model_source})"
    console.print(line((f"{plan.model}: ", "bold"), sizes), soft_wrap=True)
    each = f"on {plan.device.name}" if plan.ranks == 1 else f"on each {plan.device.name} of {plan.ranks}"
    for phase in (plan.rollout, plan.update):
        _print_phase(f"memory in {phase.name}, {each}", phase, plan.device, console)
    for way in (way for way in plan.ways[-1:] if way.gpus != plan.ranks):
        for phase in (way.rollout, way.update):
            several = f"memory in {phase.name} of a job on {way.gpus} GPUs, on each"
            _print_phase(several, phase, plan.device, console)
    _print_step(plan, console)
    _print_times(plan, console)
    if plan.ways:
        print_ways(plan, console)
    _print_parts("disk", plan.disk, console)
    for said in (*plan.assumptions, *plan.notes):
        console.print(line(("note: ", "yellow"), said), soft_wrap=True)
    verdict = line(("fits: ", "bold green"), plan.device.name) if plan.fits else line(("does not fit", "bold red"))
    console.print(verdict, soft_wrap=True)


def _print_phase(title: str, phase: Phase, device: Device, console: Console) -> None:
    if not phase.parts:
        return
    usable, total = device.usable, phase.total()
    host = f", and {gigabytes(phase.total('host'))} of the machine's own" if phase.total("host") else ""
    fits = "fits" if total <= usable else "does not fit"
    _print_parts(title, phase.parts, console)
    console.print(line(f"{gigabytes(total)} of {gigabytes(usable)}{host}: {fits}"), soft_wrap=True)
    console.print()


def _print_parts(title: str, parts: Sequence[Part], console: Console) -> None:
    rows = new_table(title, ("size",), names=("part", "how"))
    for part in parts:
        if part.nbytes:
            name = part.name if part.where == "device" else f"{part.name} (on the host)"
            rows.add_row(*map(line, (name, part.how, gigabytes(part.nbytes))))
    print_whole(rows, console)


def _print_step(plan: Plan, console: Console) -> None:
    step = plan.step
    flops = ", ".join(f"{phase} {done / 1e12:,.3g}" for phase, done in step.flops.items())
    tokens = f"{step.tokens:,} response tokens and {step.prompt_tokens:,} of prompts"
    checkpointing = "; activations are made again (checkpointing)" if plan.checkpointing else ""
    said = f"{tokens}, {plan.rows} rows side by side; TFLOPs: {flops}{checkpointing}"
    console.print(line(("a step, at most: ", "bold"), said), soft_wrap=True)
    console.print()


def _print_times(plan: Plan, console: Console) -> None:
    if not plan.times:
        return
    rows = new_table("time, at most", ("hours", "time"), names=("what", "from"))
    for timed in plan.times:
        rows.add_row(*map(line, (timed.what, timed.source, _hours(timed.seconds / 3600), _time(timed.seconds))))
    print_whole(rows, console)


def print_ways(plan: Plan, console: Console) -> None:
    """Print how a study can have its GPUs, and how a job is given several."""
    figures = ("rollout", "update", "fits", "a step", "longest job", "hours", "GPU hours")
    rows = new_table(f"the study on {plan.gpus} GPUs, at most", ("jobs x GPUs", *figures))
    for way in plan.ways:
        memory = [gigabytes(phase.total()) if phase.parts else NONE for phase in (way.rollout, way.update)]
        step = _time(sum(way.seconds.values())) if way.seconds else NONE
        hours = map(_hours, (way.longest, way.hours, way.gpu_hours))
        rows.add_row(f"{way.jobs} x {way.gpus}", *memory, "yes" if way.fits else "no", step, *hours)
    print_whole(rows, console)
    most = plan.ways[-1].gpus
    if most > 1:
        said = f"a job on {most} GPUs: `gpus: {most}` in the recipe, or `tiltlab study --gpus-per-run {most}`"
        console.print(line(said), soft_wrap=True)
    console.print()


NONE = "–"


def _hours(hours: float | None) -> str:
    if hours is None:
        return NONE
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:.2g} s"
