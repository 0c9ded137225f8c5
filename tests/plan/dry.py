"""A dry count: a random model, trained one step by the project's own loop, with all that it holds counted."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models import tiny
from tiltlab.models import hf
from tiltlab.models.codec import Codec
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from
from tiltlab.objective import tilted
from tiltlab.plan.shapes import Batch
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train_step
from tiltlab.types import Grade, Problem

FIRST = 0x10000
"""Of the letters beyond those of two bytes, of which each is a token."""


def settings(family: str, *, tied: bool, **sizes: Any) -> Any:
    """A small config of a family, with grouped heads."""
    small = {
        "vocab_size": 600,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    if family != "qwen2":
        small["head_dim"] = 16
    return AutoConfig.for_model(family, **(small | sizes))


@dataclass
class Held:
    """Bytes by part, as they were found; the largest of what comes several times."""

    parts: Counter[str] = field(default_factory=Counter)

    def most(self, name: str, nbytes: int) -> None:
        self.parts[name] = max(self.parts[name], nbytes)


def bytes_of(tensors: Any) -> int:
    """Of the storages of tensors, each once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """What autograd keeps, but for storages of `own`. It goes out to a hook in which another one is."""

    def __init__(self, own: set[int]) -> None:
        self.storages: dict[int, Any] = {}
        super().__init__(lambda tensor: self._keep(tensor, own), lambda tensor: tensor)

    def _keep(self, tensor: Tensor, own: set[int]) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def nbytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


class Large(TorchDispatchMode):
    """The most bytes at once of storages that are made within and have `least` bytes or more."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.nbytes, self._live = least, 0, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= self.least:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._live.pop, storage._cdata)
        self.nbytes = max(self.nbytes, sum(self._live.values()))
        return result


def step(
    config: Any,
    batch: Batch,
    micro_batch_tokens: int,
    *,
    dtype: torch.dtype,
    batch_tokens: int = 32768,
    checkpointing: bool = False,
    lora: LoraConfig | None = None,
    least: int | None = None,
) -> dict[str, int]:
    """Train one step, every response of full length, and count what is held. Returns bytes by the plan's names.

    least: positions whose logits are made at a time, all of a micro-batch where left out.
    """
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)
    letters = "".join(chr(FIRST + i) for i in range(config.vocab_size - 1))
    codec = Codec("dry", tiny.tokenizer(letters), (0,), 4096, config.vocab_size)
    options = {"batch_tokens": batch_tokens, "checkpointing": checkpointing}
    model_config = ModelConfig(lora=lora, **options)  # type: ignore[arg-type]
    held = Held()
    with policy_from(HFModel(module, codec, **options), model_config, seed=0) as (policy, reference):
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=1e-3))
        problems = [Problem(str(p), letters[p] * batch.prompt, "") for p in range(batch.groups)]
        budget = TrainConfig(
            1, batch.groups, batch.responses, batch.tokens, fixed_length=True, micro_batch_tokens=micro_batch_tokens
        )
        with watched(held, policy, optimizer, least):
            train_step(policy, reference, AnyReward(), tilted(0.1), budget, optimizer, problems, 0)
        trained = list(policy.trainable().values())
        adapters = bytes_of(trained) if lora else 0
        held.most("weights", bytes_of(policy.module.parameters()) - adapters)
        held.most("adapters", adapters)
        held.most("reference", 0 if lora else bytes_of(reference.module.parameters()))
        slots = optimizer._state.slots.values()
        held.most("master weights", bytes_of(slot.master for slot in slots if slot.is_copied))
        held.most("moments", bytes_of(moment for slot in slots for moment in (slot.exp_avg, slot.exp_avg_sq)))
    return dict(held.parts)


class AnyReward(Lookup):
    """Rewards each response by its length in letters and what it begins with, which differ."""

    def __init__(self) -> None:
        super().__init__([], {})

    def grade(self, problem: Problem, text: str) -> Grade:
        return Grade(float(len(set(text))), text, "correct")


@contextmanager
def watched(held: Held, policy: HFModel, optimizer: Optimizer, least: int | None) -> Iterator[None]:
    """Count within: activations and logits of each micro-batch, gradients, keys and values."""
    own = {tensor.untyped_storage()._cdata for tensor in [*policy.module.parameters(), *policy.module.buffers()]}
    logprobs, chosen, take = policy.logprobs, hf.chosen_logprobs, optimizer.step
    decode = hf.decode

    def counted_logprobs(*arguments: Any) -> Any:
        kept = Kept(own)
        with kept:
            result = logprobs(*arguments)
        held.most("activations", kept.nbytes)
        return result

    def counted_chosen(head: Any, hidden: Tensor, *rest: Any) -> Any:
        with Kept(own), Large((least or hidden.shape[0]) * rest[-1] * 4) as large:  # Kept: what it keeps is the head's
            result = chosen(head, hidden, *rest)
        if hidden.requires_grad:
            held.most("logits", large.nbytes + hidden.untyped_storage().nbytes())
        return result

    def counted_gradient(gradient: Tensor) -> None:
        waiting = [p.grad for p in policy.trainable().values() if p.grad is not None and p.dtype != torch.float32]
        held.most("gradients of a backward pass", bytes_of([gradient, *waiting]))

    def counted_step(number: int) -> float:
        held.most("gradients", bytes_of(optimizer._gradients().values()))
        return take(number)

    def counted_decode(head: Any, read_on: Any, context: Any, *rest: Any) -> Any:
        def counted_read(context: Any, tokens: Tensor) -> Any:
            context = read_on(context, tokens)
            held.most("keys and values", bytes_of(t for one in context.cache.layers for t in (one.keys, one.values)))
            return context

        return decode(head, counted_read, context, *rest)

    for parameter in policy.trainable().values():
        if parameter.dtype != torch.float32:
            parameter.register_hook(counted_gradient)
    with (
        mock.patch.object(policy, "logprobs", counted_logprobs),
        mock.patch.object(hf, "chosen_logprobs", counted_chosen),
        mock.patch.object(optimizer, "step", counted_step),
        mock.patch.object(hf, "decode", counted_decode),
    ):
        yield
