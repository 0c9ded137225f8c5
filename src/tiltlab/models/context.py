"""What a transformer has read so far, kept so that it is never read twice.

A prompt is read once for all its responses, and a beginning that all prompts of a batch share (few-shot examples, a
system message) once for the whole batch. Works for any transformers model whose cache is made of key/value layers.

Shapes: _P prompts, _N rows (sequences side by side), _L columns of the cache, _T new tokens of a row, _H hidden.

Left out on purpose: sharing the *memory* of a prompt between its responses; each row holds a copy of its keys.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Body = Callable[..., Any]
"""A transformers decoder without its vocabulary head."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer with room to grow: a decoding step writes one column instead of copying them all.

    For decoding only: it writes in place, which gradients do not survive.

    True between two calls:

    - `keys` and `values` are what attention sees: [N, heads, L, size of a head].
    - Where there is a store, they are views of its first L columns; columns beyond are room, and hold nothing.
    - Where there is none (nothing was read yet, or `keep_columns` made this layer), the next `update` copies both into
      one with room.
    - A shallow copy has the same store. Of two layers that share one, only one may be updated.
    """

    ROOM = 1 / 4
    """Of what it holds, room for more: copying it all each time the room is used up costs a constant a token."""

    @classmethod
    def with_room(cls, columns: int) -> int:
        """Columns of a store that is made to hold so many."""
        return columns + 8 + int(cls.ROOM * columns)

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self._store: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write T more columns, and return all keys and values: [N, heads, L + T, size of a head].

        key_states, value_states: of the new tokens, [N, heads, T, size of a head]; the first ones set dtype and device.
        """
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        if self._store is None or self._store[0].shape[-2] < end:
            capacity = self.with_room(end)
            self._store = (_with_room(self.keys, capacity), _with_room(self.values, capacity))
        for store, states in zip(self._store, (key_states, value_states), strict=True):
            store[:, :, length:end] = states
        self.keys, self.values = (store[:, :, :end] for store in self._store)
        return self.keys, self.values

    def keep_columns(self, start: int, columns_NK: Tensor) -> "GrowingLayer":
        """A new layer with the first `start` columns and, after them, K columns that each row chooses for itself.

        columns_NK: int64 [N, K], numbered from `start` on, in the order that they are to have.
        """
        layer = copy.copy(self)
        index = columns_NK[:, None, :, None]
        parts = []
        for states in (self.keys, self.values):
            after = states[:, :, start:]
            chosen = after.gather(2, index.expand(-1, after.shape[1], -1, after.shape[3]))
            parts.append(torch.cat([states[:, :, :start], chosen], 2))
        layer.keys, layer.values = parts
        layer._store = None
        return layer

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows named, as copies, in that order.

        indices: int64, numbers of rows, repeats allowed. A layer that has read nothing has no rows, and stays as it is.
        """
        if self._store is not None:
            length = self.keys.shape[-2]
            self._store = (self._store[0][indices], self._store[1][indices])
            self.keys, self.values = (store[:, :, :length] for store in self._store)
        elif self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]


@dataclass(frozen=True)
class Context:
    """What N sequences have read, one a row, in a cache of L columns.

    cache: keys and values of every layer. All rows have the same L columns; what a row has no use for, its mask hides.
    mask_NL: int64 [N, L], 0 at columns that a row must not see, such as padding; None where every row sees all.
    position_N: int64 [N], the position of the next token: how many tokens the row sees, whatever columns they are in.
    hidden_NH: [N, H], the final hidden state at each row's last token, which the head turns into the distribution of
        the next one; [N, 0] where nothing was read.

    `read` writes into the cache and returns a new Context over it: the old one, whose mask, positions and hidden states
    are behind, must not be used again. `select` copies, and leaves the old one good. The last column holds a token of
    every row: padding stands on the left.
    """

    cache: DynamicCache
    mask_NL: Tensor | None
    position_N: Tensor
    hidden_NH: Tensor

    def select(self, rows_N: Tensor) -> "Context":
        """A copy with the rows named, in that order.

        rows_N: int64, numbers of rows, repeats allowed; as many rows as these are in the copy.
        """
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(rows_N)
        mask_NL = None if self.mask_NL is None else self.mask_NL[rows_N]
        return Context(cache, mask_NL, self.position_N[rows_N], self.hidden_NH[rows_N])


def read_prompts(
    body: Body, config: Any, ids_P: Sequence[Sequence[int]], device: torch.device, *, growing: bool
) -> Context:
    """Read each prompt once; a beginning common to all is read in a batch of one. Returns a Context of P rows.

    config: of the model, which says what kind each layer of the cache is.
    ids_P: token ids of each prompt, at least one; prompts may differ in length.
    growing: for decoding (see GrowingLayer). Without it the context has gradients, where they are enabled.
    """
    size = len(ids_P)
    context = _nothing_read(config, 1, device, growing=growing)
    common = 0 if size == 1 or any(context.cache.is_sliding) else _common(ids_P)
    if common:
        context, _ = read(body, context, torch.tensor([ids_P[0][:common]], device=device))
        context = context.select(torch.zeros(size, dtype=torch.long, device=device))
    else:
        context = _nothing_read(config, size, device, growing=growing)
    tokens_PL, mask_PL = left_padded([ids[common:] for ids in ids_P], device)
    if mask_PL is not None:
        mask_PL = torch.cat([mask_PL.new_ones(size, common), mask_PL], 1)
    return read(body, context, tokens_PL, mask_PL)[0]


def read(body: Body, context: Context, tokens_NT: Tensor, mask_NL: Tensor | None = None) -> tuple[Context, Tensor]:
    """Read T more tokens a row. Returns the new context and the final hidden states at each new position, [N, T, H].

    context: is not to be used afterwards, as its cache is written to.
    tokens_NT: int64 [N, T].
    mask_NL: int64 [N, L], over everything read so far and the new tokens, where the new ones bring padding (on the
        left). Where it is left out, each row sees all of the new tokens.
    """
    if mask_NL is None and context.mask_NL is not None:
        mask_NL = torch.cat([context.mask_NL, torch.ones_like(tokens_NT)], 1)
    width = tokens_NT.shape[1]
    if mask_NL is None or width == 1:
        position_NT = context.position_N[:, None] + torch.arange(width, device=tokens_NT.device)
    else:  # padding stands on the left and must not count
        position_NT = context.position_N[:, None] + (mask_NL[:, -width:].cumsum(1) - 1).clamp(min=0)
    hidden_NTH = body(
        input_ids=tokens_NT,
        attention_mask=mask_NL,
        position_ids=position_NT,
        past_key_values=context.cache,
        use_cache=True,
    ).last_hidden_state
    return Context(context.cache, mask_NL, position_NT[:, -1] + 1, hidden_NTH[:, -1]), hidden_NTH


def read_whole(body: Body, ids_N: Sequence[Sequence[int]], tokens_NT: Tensor) -> Tensor:
    """Prompts and responses in one pass without a cache, which activation checkpointing cannot do with.

    ids_N: token ids of each row's prompt, at least one.
    tokens_NT: int64 [N, T], the responses, padded on the right.

    Returns the final hidden states that predict each of the T response tokens, [N, T, H].
    """
    prompt_NL, mask_NL = left_padded(ids_N, tokens_NT.device)
    inputs = torch.cat([prompt_NL, tokens_NT[:, :-1]], 1)
    mask = torch.ones_like(inputs)
    if mask_NL is not None:
        mask[:, : mask_NL.shape[1]] = mask_NL
    position = (mask.cumsum(1) - 1).clamp(min=0)
    hidden: Tensor = body(
        input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state
    return hidden[:, -tokens_NT.shape[1] :]


def left_padded(ids_N: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Ragged rows as one tensor, int64 [N, L], padded with 0, and its mask (0 at padding), None where none needs any.

    ids_N: token ids of each row, at least one row.
    """
    width = max(map(len, ids_N))
    tokens = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in ids_N], device=device)
    if all(len(ids) == width for ids in ids_N):
        return tokens, None
    return tokens, torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in ids_N], device=device)


def _common(ids_P: Sequence[Sequence[int]]) -> int:
    # At least one token must remain to be read for each prompt: its hidden state starts the responses. Not for models
    # with a sliding window, which counts the padding between the shared beginning and the rest as distance.
    most = min(map(len, ids_P)) - 1
    return next((i for i in range(most) if len({ids[i] for ids in ids_P}) > 1), most)


def _nothing_read(config: Any, size: int, device: torch.device, *, growing: bool) -> Context:
    cache = DynamicCache(config=config)
    if growing:
        cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return Context(cache, None, torch.zeros(size, dtype=torch.long, device=device), torch.empty(size, 0, device=device))


def _with_room(states: Tensor, capacity: int) -> Tensor:
    store = states.new_empty(*states.shape[:2], capacity, states.shape[-1])
    store[:, :, : states.shape[-2]] = states
    return store
