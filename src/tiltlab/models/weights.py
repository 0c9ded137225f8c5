"""Weights on their way from a model to a copy of it: by name, in the base model's own naming."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors_of(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a module's state_dict would hold, tied weights under each of their names. Nobody is told that it is looked
    at, as FSDP would be, which then puts its weights away."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        kept = {k: t for k, t in part.named_buffers(recurse=False) if k not in part._non_persistent_buffers_set}
        for name, tensor in {**dict(part.named_parameters(recurse=False)), **kept}.items():
            yield f"{prefix}.{name}" if prefix else name, tensor.detach()


@torch.no_grad()
def merged(module: Any, *, adapter: bool) -> Iterator[tuple[str, Tensor]]:
    """All weights of a causal LM as the model without adapters names them; the module stays as it is.

    module: of transformers, or one that peft has put LoRA adapters on.
    adapter: whether adapters are merged in, W + scale B A: computed in float32, given in the dtype of W.
    """
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    adapted = {name: layer for name, layer in base.named_modules() if hasattr(layer, "get_delta_weight")}
    for name, tensor in tensors_of(base):
        owner, _, rest = name.partition(".base_layer.")
        if owner in adapted and rest:
            changed = adapter and rest == "weight"
            yield f"{owner}.{rest}", _with_adapters(tensor, adapted[owner]) if changed else tensor
        elif ".lora_" not in name:
            yield name, tensor


def _with_adapters(weight: Tensor, layer: Any) -> Tensor:
    result = weight.float()
    for name in layer.active_adapters:
        result = result + layer.get_delta_weight(name).float()
    return result.to(weight.dtype)


def apart(weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The weights by name, on the CPU, each with memory of its own: tied ones are two."""
    there: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights:
        one = tensor.detach().cpu().contiguous()
        there[name] = one.clone() if one.data_ptr() in seen else one
        seen.add(one.data_ptr())
    return there


@torch.no_grad()
def take(own: Mapping[str, Tensor], weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy weights into one's own, in place. Raises ValueError, with some copied, where names differ."""
    taken = set()
    for name, tensor in weights:
        if name not in own:
            raise ValueError(f"there is no place for {name}")
        own[name].copy_(tensor)
        taken.add(name)
    if left := sorted(own.keys() - taken):
        raise ValueError(f"{len(left)} tensors were not given, such as {left[0]}")
