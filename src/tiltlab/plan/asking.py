"""From a recipe to what a plan is reckoned from."""

from typing import Any

import torch

from tiltlab.config.recipe import Recipe
from tiltlab.models.sizes import ON_CPU
from tiltlab.plan.shapes import Ask, Batch, Device, Shape

PROMPT = 256
"""Tokens of a prompt, where nobody has read any; assumed."""


def dtype_of(recipe: Recipe, device: Device) -> torch.dtype:
    """Of the weights, as `ModelConfig` says."""
    auto = torch.bfloat16 if device.is_gpu else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}.get(recipe.model.dtype, auto)


def ask_of(recipe: Recipe, device: Device, shape: Shape) -> Ask:
    """What a recipe asks for of a model, on a device."""
    train, model = recipe.train, recipe.model
    engine = recipe.engine
    return Ask(
        batch=Batch(train.prompts, train.responses, prompt_of(shape.context, train.max_tokens), train.max_tokens),
        micro_batch_tokens=train.micro_batch_tokens,
        batch_tokens=_unless_auto(model.batch_tokens) or (None if device.is_gpu else ON_CPU),
        checkpointing=_unless_auto(model.checkpointing),
        state=train.optimizer.state,
        reference=model.lora is None,
        trains=any(arm.objective() for arm in recipe.arms),
        engine=engine.name,
        engine_share=engine.share,
        apart=engine.device != "same",
        slots=model.decoding == "slots" or (model.decoding == "auto" and device.is_gpu and shape.slots),
        ranks=recipe.gpus,
        alone=bool(recipe.for_one_gpu()),
    )


def prompt_of(context: int | None, tokens: int) -> int:
    """Tokens that a prompt is taken to have: fewer where the context leaves no more beside a response.

    context: tokens that both may have, None where there is no limit.
    """
    return PROMPT if context is None else max(1, min(PROMPT, context - tokens))


def _unless_auto(value: Any) -> Any:
    return None if value == "auto" else value
