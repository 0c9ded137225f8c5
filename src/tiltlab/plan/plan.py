"""What a study would take, from its recipe and the model's config alone: no weights, no data of the hub.

config -> sizes (skeleton.py) -> bytes by part (memory.py), FLOPs and seconds (compute.py) -> what fits, or what would
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from tiltlab.config.methods import Arm
from tiltlab.config.recipe import Recipe
from tiltlab.errors import UserError
from tiltlab.models.loading import LoraConfig
from tiltlab.plan import compute
from tiltlab.plan.asking import PROMPT, ask_of, dtype_of
from tiltlab.plan.cards import RESERVED
from tiltlab.plan.outcome import Plan, Timed, refusal
from tiltlab.plan.pace import DRAWING, Pace, pace_of, rows_of
from tiltlab.plan.published import settings_of
from tiltlab.plan.rates import Measured
from tiltlab.plan.remedies import Case, on_device, remedies
from tiltlab.plan.shapes import NODE, Ask, Device, Part, Shape
from tiltlab.plan.skeleton import Skeleton
from tiltlab.plan.waiting import SPREAD, busiest
from tiltlab.plan.ways import ways
from tiltlab.plan.work import Tokens, counted_offline, tokens_of

BYTES_A_TOKEN = 6
"""Of a record's text on the disk; assumed."""


def plan_study(
    recipe: Recipe, device: Device, *, gpus: int = 1, node: int = NODE, seeds: int = 1, config: str | None = None
) -> Plan:
    """What a study would take. Loads no weights, writes nothing.

    device: that jobs run on.
    gpus: how many such devices there are; where a job of the recipe has more, as many as that.
    node: how many of them one node holds, and so the most that a job runs on.
    seeds: how many, from the recipe's first.
    config: a config.json, or its folder, to take the model's sizes from.

    Raises UserError for a model whose sizes cannot be told.
    """
    case, source = case_of(recipe, device, config)
    model, ask, notes = case.model, case.settled, list[str]()
    jobs, pace, gpus = _jobs(recipe, notes), pace_of(case), max(gpus, recipe.gpus)
    every_job = seeds * [tokens for _, tokens in jobs]
    several = ways(case, every_job, gpus, node) if gpus > 1 else ()
    if gpus > 1 and ask.alone:
        notes.append(f"a job has one GPU here: several do not go with {recipe.for_one_gpu()[0]}")
    if not pace.seconds:
        notes.append(f"no time is told: how fast {device.name} is, is not known, and nothing was measured on it here")
    return Plan(
        name=recipe.name,
        model=recipe.model.path if config is None else config,
        model_source=source,
        shape=model.shape,
        device=device,
        gpus=gpus,
        node=node,
        ranks=ask.ranks,
        checkpointing=bool(ask.checkpointing),
        rows=rows_of(case),
        rollout=case.rollout,
        update=case.update,
        ways=several,
        step=compute.step_of(model.shape, ask),
        times=tuple(_times(jobs, pace, seeds, ask.ranks) if pace.seconds else ()),
        jobs=len(every_job),
        disk=_disk(model.shape, jobs, seeds),
        remedies=() if case.fits else tuple(remedies(case)),
        assumptions=(
            *_assumptions(model.shape, ask, device, pace.found),
            *_assumed_of_ranks(ask, several[-1].gpus if several else 1, device),
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def case_of(recipe: Recipe, device: Device, config: str | None = None) -> tuple[Case, str]:
    """A recipe's model and what it asks, on a device; and where the model's sizes are from."""
    settings, source = settings_of(recipe.model, config)
    dtype, name = dtype_of(recipe, device), config or recipe.model.path

    model = Skeleton(name, settings, dtype, recipe.model.lora)
    with_adapters = cache(lambda: Skeleton(name, settings, dtype, LoraConfig()))
    return Case(model, ask_of(recipe, device, model.shape), device, with_adapters), source


def require_room(recipe: Recipe, device: Device, sharing: int) -> str | None:
    """Make sure that the jobs of a study fit a device.

    sharing: how many of them it holds at once, each with all of its ranks where it is no GPU.

    Returns what there is to say where that cannot be told, or where a machine without a GPU may be too small: it has
    other ways out than to fail. Raises UserError, in one line with a remedy, for a GPU that is too small.
    """
    try:
        case, _ = case_of(recipe, device)
        share = replace(device, usable=device.usable // (sharing if device.is_gpu else sharing * recipe.gpus))
        case = on_device(replace(case, ask=_least(case.ask)) if device.is_gpu else case, share)
        if case.fits:
            return None
    except UserError as error:
        return f"no plan of what memory this takes: {error}"
    name = recipe.name if sharing == 1 else f"{recipe.name}, {sharing} jobs side by side,"
    fewer = [f"--jobs {sharing - 1}"] * (sharing > 1 and on_device(case, device).fits)
    said = refusal(name, share, (case.rollout, case.update), [*fewer, *remedies(case)])
    if device.is_gpu:
        raise UserError(said)
    return said


def _least(ask: Ask) -> Ask:
    """The least that a job goes on with where memory runs out: a group a backward pass, a row at a time."""
    return replace(ask, micro_batch_tokens=1, batch_tokens=1)


def _jobs(recipe: Recipe, notes: list[str]) -> list[tuple[Arm, Tokens]]:
    """The jobs of one seed, with what each draws."""
    count = counted_offline(notes)
    return [(arm, tokens_of(arm, recipe, task, count)) for task in recipe.tasks for arm in recipe.arms]


def _times(jobs: Sequence[tuple[Arm, Tokens]], pace: Pace, seeds: int, ranks: int) -> list[Timed]:
    """Of a step's phases, of the longest job of each kind, and of all of them, on every device that they have."""
    times = [Timed(f"{phase} of a step", pace.seconds[phase], pace.source(phase)) for phase in pace.seconds]
    every, sampling = pace.source(*pace.seconds), pace.source(*DRAWING)
    longest: dict[str, Timed] = {}
    for arm, tokens in jobs:
        what = "a job that trains" if arm.objective() else f"a job of {arm.name}"
        lasts = pace.job(tokens)
        if what not in longest or longest[what].seconds < lasts:
            longest[what] = Timed(what, lasts, every if tokens.trained else sampling)
    total = ranks * seeds * sum(pace.job(tokens) for _, tokens in jobs)
    study = Timed(f"the study, {seeds * len(jobs)} jobs, in device hours", total, every)
    return [*times, *longest.values(), study]


def _disk(shape: Shape, jobs: Sequence[tuple[Arm, Tokens]], seeds: int) -> tuple[Part, ...]:
    """What the run folder takes: while a job trains, and in the end."""
    saved = shape.trained_bytes  # with adapters, they alone
    optimizer = 4 * (2 * shape.trained + shape.rounded)
    trained = seeds * sum(1 for _, tokens in jobs if tokens.trained)
    evaluated = seeds * sum(tokens.evaluated for _, tokens in jobs)
    return (
        Part("a job that trains, at most", 3 * (saved + optimizer), "best, last and next: weights, optimiser state"),
        Part("checkpoints in the end", trained * 2 * saved, f"best and last of {trained} jobs, weights"),
        Part("records", BYTES_A_TOKEN * evaluated, f"{BYTES_A_TOKEN} bytes a token, assumed"),
    )


def _assumptions(shape: Shape, ask: Ask, device: Device, found: Measured | None) -> list[str]:
    said = ["every response is as long as train.max_tokens allows: times and memory are the most that it takes"]
    said.append(f"prompts of {ask.batch.prompt} tokens" + (" (no data is read)" if ask.batch.prompt == PROMPT else ""))
    if device.is_gpu:
        said.append(f"{RESERVED / 1e9:g} GB of the card are set aside for CUDA and the allocator")
    if found:
        rates = ", ".join(f"{phase} {rate:,.0f}" for phase, rate in found.rates.items())
        said.append(f"measured: {rates} tokens a second in {found.steps} steps on {found.device}")
    if device.flops and not (found and {"reference", "update"} <= found.rates.keys()):
        peak = f"{device.flops / 1e12:.3g} TFLOP/s"
        said.append(f"assumed: reference and update run at {compute.SHARE:.0%} of {peak}")
    if device.bandwidth and not (found and "rollout" in found.rates):
        least = compute.seconds_a_layer(ask, device) * shape.layers
        said.append(
            f"assumed: a decoding step takes {1e3 * least:.3g} ms or more, and reads weights and keys at "
            f"{compute.BANDWIDTH_SHARE:.0%} of {device.bandwidth / 1e12:.3g} TB/s"
        )
    return said


def _assumed_of_ranks(ask: Ask, most: int, device: Device) -> list[str]:
    """most: GPUs of a job."""
    if most < 2 or not ask.trains:
        return []
    drawn, learnt = busiest(ask.batch, most)
    said = [
        f"not in the times: where responses differ in length (assumed: log-normal, {SPREAD:g}), "
        f"the busiest of {most} GPUs draws {drawn - 1:.0%} more tokens than the mean, and learns from {learnt - 1:.0%} "
        "more"
    ]
    if device.link:
        rate = f"{device.link / 1e9:.3g} GB/s"
        said.append(f"assumed: weights and gradients go from GPU to GPU at {compute.LINK_SHARE:.0%} of {rate}")
    return said
