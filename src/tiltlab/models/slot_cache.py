"""What lets a transformers model read one token a row where every row is somewhere else.

Rows stand at the left of a buffer of keys and values; each writes at the column that its own length names, and sees
what is up to there. Nothing of it depends on numbers that the host would have to know, so a step can be recorded.

Left out on purpose: sliding windows, attention sinks, capped scores. Models that have them are refused (`why_not`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

NAME = "tiltlab_slots"

UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some families tell their attention to do beside the plain thing, which `attend` does not do."""

MOVING_POSITIONS = ("dynamic", "longrope")
"""Rotary positions that change for all rows with the length of the longest."""


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, in buffers that stay.

    keys, values: [N, heads, L, size of a head].
    column_N: int64 [N], below L: where each row's next token goes.
    """

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, row_N: Tensor, column_N: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self._place = (row_N, slice(None), column_N)
        self.is_initialized = True

    def lazy_initialization(self, *_: Any, **__: Any) -> None:
        """Nothing: the buffers are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one column a row, and return all keys and values.

        key_states, value_states: of the new tokens, [N, heads, 1, size of a head].
        """
        self.keys[self._place] = key_states[:, :, 0]
        self.values[self._place] = value_states[:, :, 0]
        return self.keys, self.values

    def get_seq_length(self, *_: Any) -> int:
        """All columns, as each row's own length is in no number that the host has."""
        return int(self.keys.shape[-2])

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """All columns, from the first."""
        return self.get_seq_length(), 0

    def get_max_length(self) -> int:
        """All columns."""
        return self.get_seq_length()

    get_max_cache_shape = get_max_length  # what transformers before 5.20 or so calls it


def attend(
    module: Any,  # noqa: ARG001  # transformers passes it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token a row, as transformers calls it: [N, 1, heads, size of a head], no weights.

    query: [N, heads, 1, size of a head].
    key, value: [N, heads of keys, L, size of a head].
    attention_mask: [N, 1, 1, L], added to the scores.

    Raises ValueError where the model asks for more than that.
    """
    for name in UNKNOWN:
        if rest.get(name) is not None:
            raise ValueError(f"its attention has {name}")
    size, heads = query.shape[:2]
    # Heads that share keys stand together as if they were tokens: no key is copied, and kernels that take a mask run.
    shared = query.reshape(size, key.shape[1], heads // key.shape[1], query.shape[-1])
    out = scaled_dot_product_attention(shared, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(size, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, attend)


@contextmanager
def slot_attention(base: Any) -> Iterator[None]:
    """Within it, a transformers model attends by `attend`; then as before.

    Raises ValueError for a model whose attention cannot be replaced.
    """
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    try:
        if base.config._attn_implementation != NAME:
            raise ValueError("its attention cannot be replaced")
        yield
    finally:
        base.set_attn_implementation(before)


def up_to(column_N: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """A mask to be added to scores, [N, 1, 1, L]: 0 at each row's columns up to its own, and -inf beyond.

    column_N: int64 [N], below L.
    columns: L.
    """
    beyond_NL = torch.arange(columns, device=column_N.device) > column_N[:, None]
    mask_NL = torch.zeros(beyond_NL.shape, dtype=dtype, device=column_N.device)
    return mask_NL.masked_fill_(beyond_NL, float("-inf"))[:, None, None]


def to_the_left(states_PL: Sequence[Tensor], mask_PL: Tensor | None) -> Iterator[Tensor]:
    """Keys or values of some layers with each row's own columns first, in their order; what comes after is rubbish.

    states_PL: [P, heads, L, size of a head] of each layer.
    mask_PL: 0 at columns that are not the row's own; None where all are.
    """
    order_PL = None if mask_PL is None else mask_PL.argsort(dim=1, descending=True, stable=True)[:, None, :, None]
    for states in states_PL:
        shape = (-1, states.shape[1], -1, states.shape[3])
        yield states if order_PL is None else states.gather(2, order_PL.expand(*shape))


def why_not(base: Any, *, recorded: bool) -> str | None:
    """Why a transformers model cannot be decoded in slots, as far as its settings tell; None where nothing is against.

    recorded: whether its steps are to be CUDA graphs.
    """
    config = base.config.get_text_config()
    layers = DynamicCache(config=config).layers
    if any(getattr(layer, "is_sliding", False) for layer in layers):
        return "it has sliding windows"
    if any(type(layer) is not DynamicLayer for layer in layers):
        return "its cache is more than keys and values"
    if _rope_types(getattr(config, "rope_parameters", None)) & set(MOVING_POSITIONS):
        return "its positions depend on the longest row"
    if recorded and not getattr(base, "_can_compile_fullgraph", False):
        return "its forward cannot be a CUDA graph"
    return None


def _rope_types(parameters: Any) -> set[str]:
    """Of all layers: the parameters are those of one kind, or a dict of them by kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    nested = [_rope_types(value) for value in parameters.values()]
    return set().union(*nested, {parameters["rope_type"]} if "rope_type" in parameters else set())
