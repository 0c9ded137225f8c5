"""What draws the responses of a study: the model itself, or another engine with a copy of its weights."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from tiltlab.config.complaints import complaints
from tiltlab.config.reading import yaml_value
from tiltlab.config.tasks import tagged
from tiltlab.errors import UserError, shown
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


HF = EngineConfig()
"""The model itself draws."""


def load_engine(engine: str | None) -> EngineConfig:
    """What `--engine` names; the model itself where it is left out.

    engine: a name, or a recipe's whole entry, "{name: vllm, memory: 0.3}".

    Raises UserError with one line for each thing that is wrong.
    """
    if engine is None:
        return HF
    entry = yaml_value(engine, "--engine")
    try:
        return TypeAdapter(Annotated[EngineConfig, tagged("name")]).validate_python(entry)
    except ValidationError as error:
        raise UserError(*(f"--engine {engine}: {wrong}" for wrong in complaints(error, entry))) from error
