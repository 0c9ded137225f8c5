"""What draws the responses of a study: the model itself, or another engine with a copy of its weights."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from tiltlab.errors import shown
from tiltlab.training.importance import Correction

Name = Literal["hf", "vllm"]

BESIDE = 0.5
"""Of a GPU's memory, for an engine that shares it with the trainer."""


@dataclass(frozen=True)
class EngineConfig:
    """What draws, and how training makes up for it.

    name: "hf", the model itself; "vllm", vLLM with a copy of its weights.
    device: of another engine: "same" as the model's, or a GPU of its own, as torch names it ("cuda:1").
    memory: of another engine: the share of its GPU's memory that it may take; half where left out.
    correction: how training weights responses for what drew them; left out, not at all for hf and by whole responses
        with a cap of 2 for others.

    Raises ValueError for values that cannot be.
    """

    name: Name = "hf"
    device: str = "same"
    memory: float | None = None
    correction: Correction | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.name == "hf" and (self.device, self.memory) != ("same", None):
            raise ValueError("hf draws where the model is; leave device and memory out")
        if not re.fullmatch(r"same|cuda:\d{1,3}", self.device):
            raise ValueError(f"device is same, or a GPU such as cuda:1, got {shown(self.device)}")
        if self.memory is not None and not 0 < self.memory <= 1:
            raise ValueError(f"memory is a share, above 0 and at most 1, got {self.memory}")

    @property
    def share(self) -> float:
        """Of the GPU's memory that the engine may take."""
        return BESIDE if self.memory is None else self.memory

    @property
    def corrects(self) -> Correction:
        """How training weights responses."""
        return self.correction or Correction("nothing" if self.name == "hf" else "response")
