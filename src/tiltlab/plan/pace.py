"""How fast a job goes on a device, or on several ranks: as was measured, else as is assumed."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiltlab.plan import compute, memory
from tiltlab.plan.outcome import Source
from tiltlab.plan.rates import Measured, recalled, way_of
from tiltlab.plan.remedies import Case
from tiltlab.plan.work import Tokens

DRAWING = ("rollout", "reference")
"""Phases of what is evaluated."""


@dataclass(frozen=True)
class Pace:
    """How long the phases of a step take.

    seconds: by phase, of the busiest rank; none where no rate is known.
    tokens: response tokens of a step.
    found: what was measured, None where nothing was.
    """

    seconds: Mapping[str, float]
    tokens: int
    found: Measured | None

    @property
    def step(self) -> float:
        """Seconds of a training step."""
        return sum(self.seconds.values())

    def source(self, *phases: str) -> Source:
        """Where their seconds are from."""
        measured = self.found.rates if self.found else {}
        known = [phase in measured for phase in phases]
        return "measured" if all(known) else "partly measured" if any(known) else "assumed"

    def job(self, tokens: Tokens) -> float:
        """Seconds of a job that draws so many tokens. What is evaluated is scored by policy and reference."""
        drawing = self.seconds["rollout"] + 2 * self.seconds["reference"]
        return tokens.trained / self.tokens * self.step + tokens.evaluated / self.tokens * drawing


def pace_of(case: Case) -> Pace:
    """How fast a job goes."""
    model, ask, device = case.model, case.settled, case.device
    step = compute.step_of(model.shape, ask)
    keys = model.keys(ask.batch.prompt + ask.batch.tokens)
    way = way_of(ask.engine, checkpointing=bool(ask.checkpointing), ranks=ask.ranks)
    found = recalled(model.shape.key, device.name.split("-")[0], way)
    measured = {phase: step.tokens / rate for phase, rate in found.rates.items()} if found else {}
    seconds = compute.assumed_seconds(model.shape, ask, rows_of(case), keys, device) | measured
    if "update" in measured:  # by a clock that what is exchanged is in
        seconds.pop("exchange", None)
    known = all(phase in seconds for phase in (*DRAWING, "update"))
    return Pace(seconds if known else {}, step.tokens, found)


def rows_of(case: Case) -> int:
    """Responses that are drawn side by side, by whoever draws them, on each rank."""
    model, ask, device = case.model, case.settled, case.device
    if ask.engine == "hf":
        return memory.rows_side_by_side(model, ask, device.usable - memory.standing(model.shape, ask))
    space = ask.engine_share * device.memory - model.shape.weights
    return int(max(1, min(ask.share.rows, space // model.keys(ask.batch.prompt + ask.batch.tokens))))
