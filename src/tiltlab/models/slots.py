"""Slots: rows that are decoded side by side in buffers which stay where they are, so that a step can be a CUDA graph.

Shapes: _N slots, _T tokens of a response, _L columns of keys and values, _V tokens of the vocabulary, _H hidden.

Left out on purpose: who sits in which slot, and for how long (seating.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from tiltlab.models import decoding
from tiltlab.models.context import Body, Context
from tiltlab.models.engine import Request
from tiltlab.models.graphs import Graphs
from tiltlab.models.slot_cache import SlotLayer, to_the_left, up_to


class Slots:
    """N slots of L columns each, for responses of at most T tokens.

    body, head: of the model.
    like: a context of it, which says how large keys and values are.
    rows, columns, tokens: N, L and T.
    vocabulary: V.
    recorded: whether a step is a CUDA graph.

    True between two steps, of a row that is going:

    - length_N: how many tokens it has read; their keys and values stand in as many columns, from the first.
    - drawn_N: how many tokens of its response there are, in tokens_NT, with their log-probabilities in logp_NT.
    - token_N: the last of them, which is to be read next.
    - uniform_NT: the numbers that its tokens are drawn by.

    A row that ended (`going_N` is False) stays as it is until it is given another request: steps write only into its
    last column and beyond its limit. An empty slot has length 0. The buffers hold numbers everywhere and never NaN:
    what is masked is multiplied with 0.
    """

    def __init__(
        self,
        body: Body,
        head: Callable[[Tensor], Tensor],
        like: Context,
        *,
        rows: int,
        columns: int,
        tokens: int,
        vocabulary: int,
        recorded: bool,
    ) -> None:
        device = like.position_N.device
        self._body, self._head, self._graphs = body, head, Graphs(device) if recorded else None
        self.rows, self.columns, self.tokens = rows, columns, tokens
        self.keys = [_buffer(layer.keys, rows, columns) for layer in like.cache.layers]
        self.values = [_buffer(layer.values, rows, columns) for layer in like.cache.layers]
        self.slot_N = torch.arange(rows, device=device)
        self.token_N, self.length_N, self.drawn_N, self.limit_N = (torch.zeros_like(self.slot_N) for _ in range(4))
        self.going_N = torch.zeros_like(self.slot_N, dtype=torch.bool)
        self.ends_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self.uniform_NT = torch.zeros(rows, tokens + 1, dtype=torch.float64, device=device)
        self.tokens_NT = torch.zeros(rows, tokens + 1, dtype=torch.long, device=device)  # one more, for rows that ended
        self.logp_NT = torch.zeros(rows, tokens + 1, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, nearly all there is."""
        return sum(buffer.nbytes for buffer in self.keys + self.values)

    def run(self, rows: int, columns: int, temperature: float) -> None:
        """One step of the first slots: each row reads its last token and draws the next one.

        rows: slots that are computed.
        columns: that they may use, the one which is written to included.
        """
        if self._graphs is None:
            self._step(rows, columns, temperature)
        else:
            self._graphs.run((rows, columns, temperature), lambda: self._step(rows, columns, temperature))

    def _step(self, rows: int, columns: int, temperature: float) -> None:
        slot_N, length_N = self.slot_N[:rows], self.length_N[:rows]
        buffers = zip(self.keys, self.values, strict=True)
        views = [(keys[:rows, :, :columns], values[:rows, :, :columns]) for keys, values in buffers]
        hidden_NH = self._body(
            input_ids=self.token_N[:rows, None],
            attention_mask=up_to(length_N, columns, self.keys[0].dtype),
            position_ids=length_N[:, None],
            past_key_values=Cache(layers=[SlotLayer(keys, values, slot_N, length_N) for keys, values in views]),
            use_cache=True,
        ).last_hidden_state[:, -1]
        length_N += self.going_N[:rows]
        self._draw(slot_N, hidden_NH, temperature)

    def _draw(self, slot_N: Tensor, hidden_NH: Tensor, temperature: float) -> None:
        """The next token of the slots named, which have read all others: those that ended throw theirs away."""
        going_N, drawn_N = self.going_N[slot_N], self.drawn_N[slot_N]
        place = (slot_N, torch.where(going_N, drawn_N, self.tokens))
        token = decoding.draw(self._head(hidden_NH), self.uniform_NT[place], temperature)
        self.tokens_NT[place], self.logp_NT[place] = token.token_N, token.logp_N
        self.token_N[slot_N] = token.token_N
        drawn_N = drawn_N + going_N
        self.drawn_N[slot_N] = drawn_N
        self.going_N[slot_N] = going_N & ~self.ends_V[token.token_N] & (drawn_N < self.limit_N[slot_N])

    def seat(
        self, slots: Sequence[int], context: Context, owner: Sequence[int], asked: Sequence[Request], temperature: float
    ) -> None:
        """Give slots to requests whose prompts have been read, and draw the first token of each.

        slots: their numbers.
        context: that has read the prompts.
        owner: which of its rows each slot begins with.
        asked: the request of each slot.
        """
        device = self.slot_N.device
        slot_N, own_N = torch.tensor(slots, device=device), torch.tensor(owner, device=device)
        for buffers, name in ((self.keys, "keys"), (self.values, "values")):
            states = to_the_left([getattr(layer, name) for layer in context.cache.layers], context.mask_NL)
            for buffer, prompts in zip(buffers, states, strict=True):
                buffer[slot_N, :, : prompts.shape[2]] = prompts[own_N]
        self.uniform_NT[slot_N] = self._uniforms(asked).to(device)
        self.limit_N[slot_N] = torch.tensor([request.limit for request in asked], device=device)
        self.length_N[slot_N] = context.position_N[own_N]
        self.drawn_N[slot_N], self.going_N[slot_N] = 0, True
        self._draw(slot_N, context.hidden_NH[own_N], temperature)

    def _uniforms(self, asked: Sequence[Request]) -> Tensor:
        uniforms = np.zeros((len(asked), self.tokens + 1))
        for row, request in zip(uniforms, asked, strict=True):
            row[: request.limit] = decoding.noise([request])[0]
        return torch.from_numpy(uniforms)

    def look(self, rows: int) -> tuple[list[int], list[bool]]:
        """How many tokens each of the first slots has drawn, and whether it goes on. Waits for the device."""
        drawn, going = torch.stack([self.drawn_N[:rows], self.going_N[:rows].long()]).tolist()
        return drawn, [bool(goes_on) for goes_on in going]

    def leave(self, slots: Sequence[int]) -> tuple[list[list[int]], list[list[float]]]:
        """Empty these slots. Returns their tokens and log-probabilities, and rubbish after those that were drawn."""
        if not slots:
            return [], []
        slot_N = torch.tensor(slots, device=self.slot_N.device)
        self.length_N[slot_N] = 0
        return self.tokens_NT[slot_N].tolist(), self.logp_NT[slot_N].tolist()

    def move(self, old: Sequence[int], new: Sequence[int]) -> None:
        """Move rows to slots that are empty; those they had are empty then."""
        if not old:
            return
        old_N, new_N = (torch.tensor(slots, device=self.slot_N.device) for slots in (old, new))
        state = [self.token_N, self.length_N, self.drawn_N, self.limit_N, self.going_N]
        for buffer in [*self.keys, *self.values, self.uniform_NT, self.tokens_NT, self.logp_NT, *state]:
            buffer[new_N] = buffer[old_N]
        self.length_N[old_N], self.going_N[old_N] = 0, False


def _buffer(states: Any, rows: int, columns: int) -> Tensor:
    zeros: Tensor = states.new_zeros(rows, states.shape[1], columns, states.shape[3])
    return zeros
