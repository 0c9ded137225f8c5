"""Decoding in slots: rows that ended leave, rows that wait enter, and between two looks the device runs by itself.

The draws are those of plain decoding (decoding.py), token for token up to rounding: each row has its own noise.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from tiltlab.errors import UserError, brief
from tiltlab.models.context import Body, Context, read_prompts
from tiltlab.models.engine import Drawn, Request
from tiltlab.models.seating import SMALLEST, Line, Seat, Seats, bucket
from tiltlab.models.slot_cache import slot_attention, why_not
from tiltlab.models.slots import Slots

if TYPE_CHECKING:
    from tiltlab.models.hf import HFModel

Decoding = Literal["auto", "plain", "slots"]

LOOK = 16
"""Steps between two looks at who has ended, on a GPU: each look waits for all that was begun."""

LOOK_ON_CPU = 4
"""There is nothing to wait for on CPU; but a look has its own work."""

KEPT = 1 / 8
"""Of a GPU's memory: buffers up to this share, and their graphs, stay for the next call. Larger ones are given back, as
scoring and updating need the room, and are made and recorded again."""


class SlotDecoder:
    """Draws responses of one model, or of one view of it: with adapters off, steps are others.

    base: a causal LM of transformers that `why_not` has nothing against.
    body, head: of it.
    device: where it is.
    tell: told at each look how many tokens were drawn since the last.
    """

    def __init__(
        self,
        base: Any,
        body: Body,
        head: Callable[[Tensor], Tensor],
        device: torch.device,
        tell: Callable[[int], None],
    ) -> None:
        self._base, self._body, self._head, self._device, self._tell = base, body, head, device, tell
        self._look = LOOK if device.type == "cuda" else LOOK_ON_CPU
        self.recorded = device.type == "cuda"
        """Whether steps are CUDA graphs; looked at whenever buffers are made."""
        self._slots: Slots | None = None
        self._weights: list[int] = []

    @torch.no_grad()
    def draw(self, requests_N: Sequence[Request], temperature: float, ends_V: Tensor, batch_tokens: int) -> list[Drawn]:
        """One response a request, in their order.

        ends_V: bool [V], the tokens that end one.
        batch_tokens: as many tokens are held at most, or one row of the longest.
        """
        if not requests_N:
            return []
        columns = bucket(max(len(request.ids) + request.limit for request in requests_N), SMALLEST)
        seats = Seats(min(len(requests_N), max(1, batch_tokens // columns)))
        line = Line(requests_N, self._read)
        slots = self._room(seats.count, columns, max(request.limit for request in requests_N), len(ends_V))
        slots.ends_V.copy_(ends_V)
        ends = set(ends_V.nonzero()[:, 0].tolist())
        drawn: dict[int, Drawn] = {}
        while line or seats.taken:
            if line and seats.inviting:
                self._enter(line, requests_N, seats, slots, temperature)
            elif not line:
                slots.move(*seats.close_up())
            self._go_on(seats, slots, temperature)
            drawn |= self._leave(seats, slots, ends)
        self._slots = slots if self._stays(slots) else None
        return [drawn[row] for row in range(len(requests_N))]

    def _read(self, ids_P: Sequence[Sequence[int]]) -> Context:
        return read_prompts(self._body, self._base.config, ids_P, self._device, growing=False)

    def _enter(self, line: Line, requests_N: Sequence[Request], seats: Seats, slots: Slots, temperature: float) -> None:
        free = seats.free
        for party in line.enter(len(free)):
            taking, free = free[: len(party.rows)], free[len(party.rows) :]
            asked = [requests_N[row] for row in party.rows]
            slots.seat(taking, party.context, party.owner, asked, temperature)
            for seat, row, request in zip(taking, party.rows, asked, strict=True):
                seats.taken[seat] = Seat(row, len(request.ids), request.limit)
            self._tell(len(taking))

    def _go_on(self, seats: Seats, slots: Slots, temperature: float) -> None:
        steps = seats.steps(self._look)
        rows, columns = seats.rows, min(slots.columns, seats.columns(steps))
        with slot_attention(self._base):
            for _ in range(steps):
                slots.run(rows, columns, temperature)

    def _leave(self, seats: Seats, slots: Slots, ends: set[int]) -> dict[int, Drawn]:
        """The responses that have ended, by the numbers of their requests."""
        drawn, going = slots.look(seats.rows)
        self._tell(sum(drawn[number] - seat.drawn for number, seat in seats.taken.items()))
        for number, seat in seats.taken.items():
            seat.drawn = drawn[number]
        leaving = [number for number in seats.taken if not going[number]]
        left = {}
        for number, tokens, logps in zip(leaving, *slots.leave(leaving), strict=True):
            seat = seats.taken.pop(number)
            ids = tuple(tokens[: seat.drawn])
            left[seat.row] = Drawn(ids, tuple(logps[: seat.drawn]), ids[-1] in ends)
        return left

    def _room(self, rows: int, columns: int, tokens: int, vocabulary: int) -> Slots:
        """Buffers for so much, those of the last call if they do. They are kept again only once all rows have left:
        after an error nobody knows what is in them."""
        kept, self._slots = self._slots, None
        weights = [parameter.data_ptr() for parameter in self._base.parameters()]
        moved, self._weights = weights != self._weights, weights
        if kept and not moved and kept.rows >= rows and kept.columns >= columns and kept.tokens >= tokens:
            return kept
        del kept  # before the new ones are made
        like = self._read([[0]])
        sizes = {"rows": rows, "columns": columns, "tokens": tokens, "vocabulary": vocabulary}
        return Slots(self._body, self._head, like, recorded=self.recorded, **sizes)

    def _stays(self, slots: Slots) -> bool:
        if self._device.type != "cuda":
            return False
        total: int = torch.cuda.mem_get_info(self._device)[1]
        return slots.nbytes <= KEPT * total


def chosen(decoding: Decoding, device: torch.device) -> bool:
    """Whether slots are to be tried."""
    return decoding == "slots" or (decoding == "auto" and device.type == "cuda")


def slot_decoder(model: "HFModel", base: Any, decoding: Decoding) -> SlotDecoder | None:
    """What draws for a model where that is to be done in slots; None where it is to be done plainly.

    model: made ready so far that it can score.
    base: its transformers model, without what peft puts around it.
    decoding: "auto" takes slots on a CUDA device, if the model allows, and says once where it does not.

    Raises UserError where slots are asked for by name and the model does not allow them.
    """
    if not chosen(decoding, model.device):
        return None
    decoder = SlotDecoder(base, model._body, model._head, model.device, lambda drew: model.tell(drew))
    reason = why_not(base, recorded=model.device.type == "cuda") or _differs(decoder, model)
    if reason is None:
        return decoder
    if decoding == "slots":
        raise UserError(
            f"model {model.codec.name} cannot be decoded in slots: {reason}; set model.decoding to auto or plain"
        )
    _say_once(model.codec.name, reason)
    return None


@torch.no_grad()
def _differs(decoder: SlotDecoder, model: "HFModel") -> str | None:
    """How log-probabilities of what slots draw for ragged random prompts differ from what the model scores, if they do.
    Four rows share three slots: prompts are read side by side, and a row enters where another has left."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(model.codec.vocabulary, (2, 8), generator=generator).tolist()
    prompts = [tuple(rows[0][:7]), (*rows[0][:1], *rows[1][1:3])]
    asked = [Request(ids, 5, p, row) for p, ids in enumerate(prompts) for row in range(2)]
    nothing_ends = torch.zeros(model.codec.vocabulary, dtype=torch.bool, device=model.device)
    try:
        with model._ready():
            drawn = decoder.draw(asked, 1.0, nothing_ends, 3 * SMALLEST)
            tokens_PGT = torch.tensor([response.tokens for response in drawn], device=model.device).view(2, 2, 5)
            scored, _ = model._score(prompts, tokens_PGT, torch.ones_like(tokens_PGT, dtype=torch.bool))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model may be written in any way
        return brief(error) or type(error).__name__
    told = torch.tensor([response.logprobs for response in drawn], device=model.device).view(2, 2, 5)
    off = (told - scored).abs().max().item()
    exact = next(model.module.parameters()).dtype == torch.float32
    return None if off < (1e-3 if exact else 0.5) else f"log-probabilities are off by {off:.3g} nats"


@cache
def _say_once(name: str, reason: str) -> None:
    logging.getLogger(__name__).warning("model %s is decoded plainly and not in slots: %s", name, reason)
