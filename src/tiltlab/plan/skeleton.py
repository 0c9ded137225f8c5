"""A model on torch's meta device, where tensors have a shape and no memory: its sizes, and what a forward would keep.

The trainer's own reading of prompts and responses runs on it, so what autograd keeps is counted and not guessed, for
every model that transformers builds. Attention alone is stood in for: on the meta device torch would take a way that
keeps [T, T] scores, and the fused kernels of CPU and GPU keep queries, keys, values, the mask and the result.

Left out on purpose: the vocabulary head, whose sizes memory.py has in closed form.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.masking_utils import sdpa_mask

from tiltlab.errors import UserError, brief
from tiltlab.models.adapters import with_adapters
from tiltlab.models.context import Context, read, read_prompts
from tiltlab.models.fitness import checkpoint_layers, quiet_dropout
from tiltlab.models.limits import longest_context
from tiltlab.models.loading import LoraConfig
from tiltlab.models.sizes import Sizes
from tiltlab.models.slot_cache import why_not
from tiltlab.plan.rates import key_of
from tiltlab.plan.shapes import Batch, Shape

META = torch.device("meta")
_FUSED = "tiltlab-fused"


class Skeleton:
    """A model without weights. Satisfies `Counted`.

    name: of the model, for errors.
    settings: its config, as transformers has it.
    dtype: of its weights.
    lora: adapters to be put on it.

    Raises UserError for a config that no causal language model can be built from.
    """

    def __init__(self, name: str, settings: Any, dtype: torch.dtype, lora: LoraConfig | None) -> None:
        AttentionInterface.register(_FUSED, _fused)
        AttentionMaskInterface.register(_FUSED, sdpa_mask)
        whole = _built(name, settings, dtype)
        self.shape = _shape(whole, key_of(settings.get_text_config(), dtype, lora))
        self._sizes = Sizes.of(settings, self.shape.width)
        few = _few(name, settings, dtype, self.shape)
        if lora:
            wrapped = with_adapters(whole, name, lora, seed=0)
            self.shape = _adapted(self.shape, [p for p in wrapped.parameters() if p.requires_grad])
            for module in few:
                with_adapters(module, name, lora, seed=0)
        self._bodies = [_Body(name, module) for module in few or [whole]]
        self.keys = cache(self._keys)
        self.kept = cache(self._kept)

    def drawing(self, free: int) -> int:
        """As `Counted.drawing`."""
        return self._sizes.fit(max(0, free)).drawing

    def needs_checkpointing(self, tokens: int, free: int) -> bool:
        """As `Counted.needs_checkpointing`."""
        return self._sizes.needs_checkpointing(tokens, free)

    def _keys(self, columns: int) -> int:
        return self._of_all_layers([body.keys(columns) for body in self._bodies])

    def _kept(self, batch: Batch, *, whole: bool, checkpointing: bool = False) -> int:
        return self._of_all_layers([body.kept(batch, whole, checkpointing) for body in self._bodies])

    def _of_all_layers(self, counts: list[int]) -> int:
        """From a count of the whole model, or from counts of its first layer and of its first two."""
        return counts[0] + sum((self.shape.layers - 1) * (two - one) for one, two in pairwise(counts))


class _Body:
    """The layers of a model without weights, read as the trainer reads them."""

    def __init__(self, name: str, module: Any) -> None:
        self._name, self._body, self.config = name, module.base_model, module.config

    @torch.no_grad()
    def keys(self, columns: int) -> int:
        self._body.eval()
        with _counting(self._name):
            context = self._read(1, columns)
            return sum(layer.keys.nbytes + layer.values.nbytes for layer in context.cache.layers)

    def kept(self, batch: Batch, whole: bool, checkpointing: bool) -> int:
        self._body.train(checkpointing)  # only in training mode does it happen
        kept = _Kept([*self._body.parameters(), *self._body.buffers()])
        with _counting(self._name), kept:
            if whole:
                self._read(batch.rows, batch.prompt + batch.tokens - 1)
            else:
                context = self._read(batch.groups, batch.prompt)
                context = context.select(torch.arange(batch.groups, device=META).repeat_interleave(batch.responses))
                if batch.tokens > 1:
                    read(self._body, context, torch.zeros(batch.rows, batch.tokens - 1, dtype=torch.long, device=META))
        return kept.nbytes

    def _read(self, rows: int, columns: int) -> Context:
        ids_N = [[row, *[0] * (columns - 1)] for row in range(rows)]  # no two begin alike: nothing is read for several
        return read_prompts(self._body, self.config, ids_N, META, growing=False)


def _built(name: str, settings: Any, dtype: torch.dtype) -> Any:
    """The model on the meta device, ready to be read."""
    try:
        with META:
            own = copy.deepcopy(settings)  # it is written into
            module = AutoModelForCausalLM.from_config(own, dtype=dtype, attn_implementation=_FUSED)
    except Exception as error:  # a config may be any nonsense
        raise UserError(f"model {name}: its config makes no causal language model ({brief(error, 200)})") from error
    quiet_dropout(module)
    checkpoint_layers(module)
    return module


def _few(name: str, settings: Any, dtype: torch.dtype, shape: Shape) -> list[Any]:
    """The same model with its first layer, and with its first two, which are read much faster: where all of its layers
    are alike; else none."""
    if shape.layers < 3 or len(set(getattr(settings.get_text_config(), "layer_types", None) or [""])) > 1:
        return []
    modules = []
    for layers in (1, 2):
        shorter = copy.deepcopy(settings)
        text = shorter.get_text_config()
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
        modules.append(_built(name, shorter, dtype))
    one, two = (sum(p.numel() for p in module.parameters()) for module in modules)
    return modules if one + (shape.layers - 1) * (two - one) == shape.parameters else []


@contextmanager
def _counting(name: str) -> Iterator[None]:
    """Whatever goes wrong within means that the model cannot be read without weights: its data choose its experts."""
    try:
        yield
    except Exception as error:
        said = brief(error, 200)
        raise UserError(f"model {name}: what it holds cannot be counted without weights ({said})") from error


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd keeps within the block: each storage once, those of `own` not at all."""

    def __init__(self, own: list[Tensor]) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no number is given twice
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._storages[storage._cdata] = storage
        return tensor

    @property
    def nbytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


class _FusedKernel(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result, *([] if mask is None else [mask]))
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("a model without weights is not trained")


def _fused(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, [N, heads, T, size of a head]. With a mask keys and values are written out
    for every head, and torch makes a mask of numbers from one of yes and no, in every layer."""
    mask, groups = attention_mask, query.shape[1] // key.shape[1]
    if mask is not None:
        if groups > 1:
            key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
        if mask.dtype == torch.bool:
            mask = torch.empty(mask.shape, dtype=query.dtype, device=mask.device)
    result: Tensor = _FusedKernel.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2).contiguous(), None


def _shape(module: Any, key: str) -> Shape:
    settings = module.config.get_text_config()
    parameters = list(module.parameters())
    count = sum(p.numel() for p in parameters)
    inputs, outputs = module.get_input_embeddings(), module.get_output_embeddings()
    tied = outputs is not None and outputs.weight is inputs.weight
    heads = settings.num_attention_heads
    head = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    weights = sum(p.nbytes for p in parameters)
    return Shape(
        key=key,
        parameters=count,
        multiplied=count - (0 if tied else inputs.weight.numel()),
        adapters=0,
        trained=count,
        rounded=sum(p.numel() for p in parameters if p.dtype != torch.float32),
        weights=weights,
        trained_bytes=weights,
        largest=max(p.numel() for p in parameters),
        width=inputs.weight.element_size(),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        vocabulary=settings.vocab_size,
        attention=heads * head,
        slots=why_not(module, recorded=True) is None,
        context=longest_context(settings),
    )


def _adapted(base: Shape, adapters: list[Tensor]) -> Shape:
    count, nbytes = sum(p.numel() for p in adapters), sum(p.nbytes for p in adapters)
    return replace(
        base,
        adapters=count,
        trained=count,
        rounded=sum(p.numel() for p in adapters if p.dtype != torch.float32),
        weights=base.weights + nbytes,
        trained_bytes=nbytes,
        largest=max(p.numel() for p in adapters),
    )
