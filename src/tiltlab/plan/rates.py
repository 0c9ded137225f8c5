"""How fast this machine has been: tokens a second by phase, kept in the user's cache from one study to the next.

A line a job that trained, in rates.jsonl of the cache folder. Of lines of one model and device the newest counts.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltlab.errors import UserError
from tiltlab.storage.files import Json, append_line, make_folder, whole_lines

if TYPE_CHECKING:
    import torch

    from tiltlab.models.loading import LoraConfig

PHASES = ("rollout", "reference", "update")


@dataclass(frozen=True)
class Measured:
    """What a job took.

    model: `Shape.key` of its model.
    device: its name.
    how: what else the rates depend on (`way_of`).
    steps: of training that the rates are of.
    rates: response tokens a second, by phase.
    """

    model: str
    device: str
    how: str
    steps: int
    rates: dict[str, float]


def key_of(settings: Any, dtype: "torch.dtype", lora: "LoraConfig | None") -> str:
    """What rates of a model are kept under.

    settings: its config, as transformers has it.
    """
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    numbers = " x ".join(str(getattr(settings, size, "?")) for size in sizes)
    adapters = f", adapters of rank {lora.rank}" if lora else ""
    return f"{settings.model_type} {numbers}, {str(dtype).removeprefix('torch.')}{adapters}"


def way_of(engine: str, *, checkpointing: bool, ranks: int = 1) -> str:
    """Who draws, whether activations are made again, and on how many ranks: rates of one way say little of another."""
    return engine + ", checkpointing" * checkpointing + (f", {ranks} ranks" if ranks > 1 else "")


def cache_file() -> Path:
    """Where rates are kept: in $XDG_CACHE_HOME/tiltlab, or ~/.cache/tiltlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiltlab" / "rates.jsonl"


def measured(model: str, device: str, how: str, steps: Sequence[Json]) -> Measured | None:
    """The rates of a job; None where it took no step with a clock.

    steps: lines of its metrics.jsonl.
    """
    timed = [line for line in steps if line.get("seconds") and line.get("tokens")]
    seconds = {phase: sum(line["seconds"].get(phase, 0.0) for line in timed) for phase in PHASES}
    tokens = {phase: sum(line["tokens"].get(phase, 0) for line in timed) for phase in PHASES}
    rates = {phase: tokens[phase] / seconds[phase] for phase in PHASES if seconds[phase] > 0 and tokens[phase]}
    return Measured(model, device, how, len(timed), rates) if rates else None


def remember(found: Measured) -> None:
    """Keep rates. A cache that cannot be written is left alone: no job is to fail for it."""
    with suppress(UserError, OSError):
        make_folder(cache_file().parent)
        append_line(cache_file(), asdict(found))


def recalled(model: str, device: str, how: str) -> Measured | None:
    """The newest rates of a model, on a device whose name holds these letters; None where there are none."""
    found = None
    with suppress(UserError, OSError):
        for line in whole_lines(cache_file()):
            with suppress(TypeError, AttributeError, ValueError):
                one = Measured(**line)
                rates = {phase: float(one.rates[phase]) for phase in one.rates if one.rates[phase] > 0}
                if (one.model, one.how) == (model, how) and device.lower() in one.device.lower() and rates:
                    found = replace(one, steps=int(one.steps), rates=rates)
    return found
