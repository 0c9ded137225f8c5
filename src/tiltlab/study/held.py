"""How the models of a job are held in memory: decided from what is free, and remembered where that was not enough."""

from dataclasses import replace
from typing import Any

from tiltlab.config.recipe import Recipe
from tiltlab.errors import UserError
from tiltlab.models.base import Policy
from tiltlab.models.engine import Split
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig
from tiltlab.storage.files import read_json, write_json
from tiltlab.storage.run_folder import JobDir
from tiltlab.system.devices import free_bytes
from tiltlab.system.world import ALONE, World
from tiltlab.training.adamw import device_bytes
from tiltlab.training.room import Room

SHARED = 12
"""Bytes of a trained weight that ranks share out: itself and its moments, in float32."""


def decided(recipe: Recipe, base: HFModel, world: World = ALONE) -> ModelConfig:
    """The recipe's model with `checkpointing: auto` decided: on a GPU, where the activations of the largest micro-batch
    would not fit beside all that training holds; prompts are not counted.

    base: the model, on its device, before anything is trained.
    world: of the ranks that train it, all of which call this; they decide alike.
    """
    if recipe.model.checkpointing != "auto":
        return recipe.model
    free, train = free_bytes(base.device), recipe.train
    if free is None:
        return replace(recipe.model, checkpointing=False)
    if recipe.model.lora is None:
        weights = sum(p.numel() for p in base.module.parameters())
        itemsize, state = base.sizes.itemsize, train.optimizer.state
        own = 0 if state == "host" else itemsize  # the reference makes room for the policy
        trained = device_bytes(state, itemsize) if world.size == 1 else SHARED / world.size
        free -= int(weights * (own + 4 + trained))  # 4: a gradient
    tokens = max(train.micro_batch_tokens, train.responses * train.max_tokens)
    return replace(recipe.model, checkpointing=any(world.gather(base.sizes.needs_checkpointing(tokens, free))))


def hold(recipe: Recipe, policy: Policy, reference: HFModel, room: Room) -> None:
    """Make use of the memory that is free once the optimiser has its own; policy and reference hold alike.

    room: bounds what is drawn, and takes note where that was too much.
    """
    drawing = policy.trained if isinstance(policy, Split) else policy
    assert isinstance(drawing, HFModel)
    if recipe.train.optimizer.state == "host" and reference.device.type == "cuda" and recipe.model.lora is None:
        reference.shelve()
    if recipe.model.batch_tokens == "auto":
        drawing.fit()
    drawing.batch_tokens = min(drawing.batch_tokens, room.batch_tokens or drawing.batch_tokens)
    reference.batch_tokens, reference.scoring_tokens = drawing.batch_tokens, drawing.scoring_tokens
    drawing.ran_out = room.drew_with


def room_left(recipe: Recipe, folder: JobDir) -> Room:
    """The room that an earlier try was left with; what the recipe says where none ran out of memory, or where one did
    under other memory keys.

    Raises UserError for a memory.json that is damaged.
    """
    asked = Room(recipe.train.micro_batch_tokens)
    if not folder.memory.exists():
        return asked
    match read_json(folder.memory):
        case {"under": under} if under != _memory_keys(recipe):
            return asked
        case {"micro_batch_tokens": int(micro), "batch_tokens": int() | None as drawing} if micro > 0 and drawing != 0:
            return Room(min(micro, asked.micro_batch_tokens), drawing)
    raise UserError(f"{folder.memory} is damaged; remove it, and what fits is found out again")


def keep_room(recipe: Recipe, folder: JobDir, room: Room) -> str:
    """Keep the room for a later try, the smallest of any rank's. Returns a line that says what it is."""
    room = _smaller(room, room_left(recipe, folder))
    bounds = {"micro_batch_tokens": room.micro_batch_tokens, "batch_tokens": room.batch_tokens}
    write_json(folder.memory, {"under": _memory_keys(recipe)} | bounds)
    drawing = "" if room.batch_tokens is None else f" and model.batch_tokens {room.batch_tokens}"
    return f"memory ran out; going on with train.micro_batch_tokens {room.micro_batch_tokens}{drawing}"


def _smaller(one: Room, other: Room) -> Room:
    drawing = [room.batch_tokens for room in (one, other) if room.batch_tokens is not None]
    return Room(min(one.micro_batch_tokens, other.micro_batch_tokens), min(drawing, default=None))


def _memory_keys(recipe: Recipe) -> dict[str, Any]:
    """What bounds depend on, as the recipe has it."""
    model, train = recipe.model, recipe.train
    ranks = {"gpus": recipe.gpus} if recipe.gpus > 1 else {}  # older versions wrote none
    return ranks | {
        "batch_tokens": model.batch_tokens,
        "checkpointing": model.checkpointing,
        "micro_batch_tokens": train.micro_batch_tokens,
        "state": train.optimizer.state,
    }
