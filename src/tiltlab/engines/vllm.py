# ruff: noqa: ARG002
"""vLLM as an engine: the only file that knows it."""

from collections.abc import Sequence
from pathlib import Path

from tiltlab.errors import UserError
from tiltlab.models.engine import Drawn, Request, Weights
from tiltlab.models.hf import HFModel


class VLLM:
    """Satisfies `Engine`.

    model: whose shape, tokens and limits it has.
    folder: in which it may keep files of its own.
    device: "same" as the model's, or a GPU of its own.
    memory: the share of that GPU's memory that it may take.
    """

    version = -1

    def __init__(self, model: HFModel, folder: Path, *, device: str, memory: float) -> None:
        raise UserError("engine vllm is not part of this version; set engine.name to hf")

    def update(self, weights: Weights, version: int) -> None:
        """`Engine.update`."""

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """`Engine.draw`."""
        return []

    def close(self) -> None:
        """`Engine.close`."""
