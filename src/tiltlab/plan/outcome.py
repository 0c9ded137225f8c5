"""What a plan comes to. Pure values, which reports read without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltlab.plan.compute import Step
from tiltlab.plan.shapes import Device, Part, Phase, Shape

Source = Literal["measured", "assumed", "partly measured"]


@dataclass(frozen=True)
class Timed:
    """How long something takes, every response as long as it may be.

    what: it is.
    seconds: on one device.
    source: whether rates that this machine measured say so, or assumptions.
    """

    what: str
    seconds: float
    source: Source


@dataclass(frozen=True)
class Way:
    """A study on several GPUs, one way of sharing them out.

    jobs: side by side. gpus: that each of them runs on.
    rollout, update: what is held in each phase, on each GPU. fits: whether they do.
    groups: of a step that the busiest GPU of a job has.
    seconds: of a step, by phase; none where no rate is known.
    longest: hours of the job that takes longest. hours: of the study. gpu_hours: as long as the study has all GPUs,
        those too that wait for the last job. None where no rate is known.
    """

    jobs: int
    gpus: int
    rollout: Phase
    update: Phase
    fits: bool
    groups: int
    seconds: dict[str, float]
    longest: float | None
    hours: float | None
    gpu_hours: float | None


@dataclass(frozen=True)
class Plan:
    """What a study would take.

    name: of the recipe.
    model: by name. model_source: where its sizes are from.
    shape: its sizes.
    device: that it is planned for. gpus: how many of them. node: how many one node holds. ranks: how many of them each
        job has, as the recipe says.
    checkpointing: as settled for this device.
    rows: responses that are drawn side by side.
    rollout, update: what is held in each phase.
    ways: to share several GPUs out; none for one.
    step: tokens and FLOPs of a training step.
    times: of a step's phases, of jobs, and of the study; none where no rate is known.
    jobs: of the study, with all seeds.
    disk: what its run folder takes.
    remedies: changes to the recipe, or devices, that make it fit; empty where it fits or nothing does.
    assumptions: what was taken for granted, a line each.
    notes: what could not be told, a line each.
    """

    name: str
    model: str
    model_source: str
    shape: Shape
    device: Device
    gpus: int
    node: int
    ranks: int
    checkpointing: bool
    rows: int
    rollout: Phase
    update: Phase
    ways: tuple[Way, ...]
    step: Step
    times: tuple[Timed, ...]
    jobs: int
    disk: tuple[Part, ...]
    remedies: tuple[str, ...]
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether each phase fits, on each device."""
        return all(phase.total() <= self.device.usable for phase in (self.rollout, self.update))

    @property
    def refusal(self) -> str | None:
        """Why it cannot be run, and what would mend that, in one line; None where it fits."""
        return None if self.fits else refusal(self.name, self.device, (self.rollout, self.update), self.remedies)


def refusal(name: str, device: Device, phases: Sequence[Phase], remedies: Sequence[str]) -> str:
    """Why a study cannot be run, and what would mend that, in one line.

    name: of the recipe.
    phases: what is held in each.
    remedies: that make it fit, if any do.
    """
    phase = max(phases, key=Phase.total)
    most = max((part for part in phase.parts if part.where == "device"), key=lambda part: part.nbytes)
    said = (
        f"{name} does not fit {device.name}: its {phase.name} takes {gigabytes(phase.total())} of the "
        f"{gigabytes(device.usable)} that can be used ({most.name} {gigabytes(most.nbytes)})"
    )
    if not remedies:
        return f"{said}; nothing that a recipe can change makes it fit, and no card that tiltlab knows"
    return f"{said}; it fits with {', or '.join(remedies)}"


def gigabytes(nbytes: float) -> str:
    """Bytes in words, decimal."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
