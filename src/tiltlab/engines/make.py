"""From a recipe's `engine` to what draws: the model itself, or a Split of it and the engine asked for."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from tiltlab.config.engine import EngineConfig
from tiltlab.engines.vllm import VLLM, require_temperature, require_vllm
from tiltlab.errors import UserError
from tiltlab.models.base import Policy
from tiltlab.models.engine import Engine, Split
from tiltlab.models.hf import HFModel
from tiltlab.models.server import is_served
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature


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
        both = Split(model, engine)
        require_same(both, 1e-3 if model.module.dtype == torch.float32 else 0.1)
        yield both
    finally:
        engine.close()


def engine_for(config: EngineConfig, model: HFModel) -> Engine:
    """An engine other than the model itself, without weights yet.

    config: which, and where it is to run.
    model: whose shape, tokens and limits it is to have.

    Raises UserError where there is no such engine here, or it cannot start with this model.
    """
    return VLLM(model, device=config.device, memory=config.share)


def require_same(both: Split, tolerance: float) -> None:
    """Check that the engine draws from the model: a few of its draws, scored by the trained model.

    tolerance: nats a token.

    Raises UserError where the two are further apart than rounding makes them.
    """
    prompts = ["1"]
    rollouts = both.generate(prompts, n=4, max_tokens=8, seed=0, ignore_eos=True)
    with torch.no_grad():
        token_GT = both.logprobs(prompts, rollouts).token_PGT[0].cpu()
    apart = (token_GT - torch.tensor([rollout.logprobs for rollout in rollouts[0]])).abs().mean().item()
    if not apart < tolerance:
        raise UserError(
            f"the engine is not the model: of its own draws it is {apart:.2g} nats a token off; does it know this "
            "architecture? Set engine.name to hf"
        )


def require_engine(config: EngineConfig, *models: str, samplers: Iterable[Sampler] = ()) -> None:
    """Check that the engine asked for can be had; it is not started.

    models: that it is to draw for, by their paths.
    samplers: that it is to draw by.

    Raises UserError where it is not installed, for a model on a server, which has no weights to give it, and for a
    temperature that it does not draw at: jobs that train come first, and would be in vain.
    """
    if config.name == "hf":
        return
    if served := next(filter(is_served, models), None):
        raise UserError(f"{served} draws by itself, and gives no weights to another engine; leave engine out")
    require_vllm()
    for sampler in samplers:
        require_temperature(_temperature(sampler))


def _temperature(sampler: Sampler) -> float:
    """The one furthest from 1 that a sampler has an engine draw at."""
    match sampler:
        case Temperature(top_p=1, top_k=None):
            return sampler.temperature
        case PowerSMC():
            return sampler.proposal_temperature(sampler.alpha)
        case PowerMCMC():
            return sampler.proposal_temperature
    return 1.0
