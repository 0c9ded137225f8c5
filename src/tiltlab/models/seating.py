"""Who sits in which slot, who waits, and how far the next steps may go. No tensors: the device is not asked.

Rows that ended leave their seats to rows that wait. Once nobody waits, those on the last seats move to free ones
further down, so that fewer rows are computed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from tiltlab.models.context import Context
from tiltlab.models.engine import Request

ENTER = 1 / 8
"""Waiting rows enter once this share of the seats is free: reading prompts costs a forward, for one as for many."""

SMALLEST = 16
"""Columns are counted by so many at least."""


def bucket(count: int, least: int = 1) -> int:
    """`count` rounded up to one of four sizes an octave, and to a multiple of `least`, a power of 2: at most a quarter
    is added beyond `least`."""
    step = max(least, 1 << max(0, count.bit_length() - 3))
    return -(-count // step) * step


@dataclass
class Seat:
    """A request on its seat.

    row: its number.
    prompt: tokens of its prompt.
    limit: the most tokens of its response.
    drawn: how many there are.
    """

    row: int
    prompt: int
    limit: int
    drawn: int = 1

    def columns(self, steps: int) -> int:
        """That it will have used after so many steps, one for rows that wait to leave included."""
        return self.prompt + min(self.limit, self.drawn + steps)


@dataclass
class Seats:
    """`count` seats, and who is on them."""

    count: int
    taken: dict[int, Seat] = field(default_factory=dict)

    @property
    def free(self) -> list[int]:
        """Seats that nobody is on, lowest first."""
        return [seat for seat in range(self.count) if seat not in self.taken]

    @property
    def inviting(self) -> bool:
        """Whether enough seats are free for others to enter."""
        return not self.taken or self.count - len(self.taken) >= max(1, ENTER * self.count)

    @property
    def rows(self) -> int:
        """Seats, from the first, that a step must compute."""
        return min(self.count, bucket(max(self.taken) + 1))

    def steps(self, most: int) -> int:
        """Until somebody looks again: no more than `most`, and than any row may go on."""
        return min(most, max(seat.limit - seat.drawn for seat in self.taken.values()))

    def columns(self, steps: int) -> int:
        """That must be there for so many steps."""
        return bucket(max(seat.columns(steps) for seat in self.taken.values()), SMALLEST)

    def close_up(self) -> tuple[list[int], list[int]]:
        """Move to fewer rows where that is possible. Returns seats that were left, and those taken instead."""
        size = bucket(len(self.taken))
        leaving = sorted(seat for seat in self.taken if seat >= size)
        taking = self.free[: len(leaving)]
        for old, new in zip(leaving, taking, strict=True):
            self.taken[new] = self.taken.pop(old)
        return leaving, taking


class Party(NamedTuple):
    """Rows that enter together.

    rows: numbers of their requests.
    context: that has read their prompts, a row each.
    owner: which row of the context is whose.
    """

    rows: list[int]
    context: Context
    owner: list[int]


class Line:
    """Requests that wait, prompt by prompt. A prompt is read when its first row enters, once for all its rows.

    requests_N: of whatever prompts and limits.
    read: prompts, as token ids -> Context of a row each.
    """

    def __init__(self, requests_N: Sequence[Request], read: Callable[[list[tuple[int, ...]]], Context]) -> None:
        self._requests_N, self._read = requests_N, read
        first = {request.ids: row for row, request in reversed(list(enumerate(requests_N)))}
        self._waiting = deque(sorted(range(len(requests_N)), key=lambda row: first[requests_N[row].ids]))
        self._known: tuple[tuple[int, ...], Context] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, seats: int) -> Iterator[Party]:
        """The next of them, as many as there are seats."""
        rows = [self._waiting.popleft() for _ in range(min(seats, len(self._waiting)))]
        known = [row for row in rows if self._known and self._ids(row) == self._known[0]]
        if self._known and known:
            yield Party(known, self._known[1], [0] * len(known))
        if new := rows[len(known) :]:
            place = {ids: p for p, ids in enumerate(dict.fromkeys(map(self._ids, new)))}
            context = self._read(list(place))
            yield Party(new, context, [place[self._ids(row)] for row in new])
            last = torch.tensor([len(place) - 1], device=context.position_N.device)
            self._known = self._ids(new[-1]), context.select(last)
        if self._known and not (self._waiting and self._ids(self._waiting[0]) == self._known[0]):
            self._known = None

    def _ids(self, row: int) -> tuple[int, ...]:
        return self._requests_N[row].ids
