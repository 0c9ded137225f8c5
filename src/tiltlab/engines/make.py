"""From a recipe's `engine` to what draws: the model itself, or a Split of it and the engine asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

from tiltlab.config.engine import EngineConfig
from tiltlab.engines.vllm import VLLM, require_vllm
from tiltlab.models.base import Policy
from tiltlab.models.engine import Engine, Split
from tiltlab.models.hf import HFModel


@contextmanager
def drawn_by(config: EngineConfig, model: HFModel) -> Iterator[Policy]:
    """The model, drawing by the engine asked for; that is closed when the block ends, however it ends.

    Raises UserError where there is no such engine here, or it cannot start with this model.
    """
    if config.name == "hf":
        yield model
        return
    engine = engine_for(config, model)
    try:
        yield Split(model, engine)
    finally:
        engine.close()


def engine_for(config: EngineConfig, model: HFModel) -> Engine:
    """An engine other than the model itself, without weights yet.

    config: which, and where it is to run.
    model: whose shape, tokens and limits it is to have.

    Raises UserError where there is no such engine here, or it cannot start with this model.
    """
    return VLLM(model, device=config.device, memory=config.share)


def require_engine(config: EngineConfig) -> None:
    """Check that the engine asked for is installed; it is not started. Raises UserError where it is not."""
    if config.name == "vllm":
        require_vllm()
