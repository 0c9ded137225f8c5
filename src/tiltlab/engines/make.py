"""From a recipe's `engine` to what draws: the model itself, or a Split of it and the engine asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tiltlab.config.engine import EngineConfig
from tiltlab.errors import UserError
from tiltlab.models.base import Policy
from tiltlab.models.engine import Engine, Split
from tiltlab.models.hf import HFModel


@contextmanager
def drawn_by(config: EngineConfig, model: HFModel, folder: Path) -> Iterator[Policy]:
    """The model, drawing by the engine asked for; that is closed when the block ends, however it ends.

    folder: in which an engine may keep files of its own while it lives.

    Raises UserError where there is no such engine here.
    """
    if config.name == "hf":
        yield model
        return
    engine = engine_for(config, model, folder)
    try:
        yield Split(model, engine)
    finally:
        engine.close()


def engine_for(config: EngineConfig, model: HFModel, folder: Path) -> Engine:
    """An engine other than the model itself, without weights yet.

    config: which, and where it is to run.
    model: whose shape, tokens and limits it is to have.
    folder: in which it may keep files of its own.

    Raises UserError where there is no such engine here.
    """
    require_engine(config)
    from tiltlab.engines.vllm import VLLM

    return VLLM(model, folder, device=config.device, memory=config.share)


def require_engine(config: EngineConfig) -> None:
    """Check that the engine asked for is installed; it is not started. Raises UserError where it is not."""
    if config.name == "vllm" and find_spec("vllm") is None:
        raise UserError("engine vllm is not installed; `pip install 'tiltlab[vllm]'`, or set engine.name to hf")
