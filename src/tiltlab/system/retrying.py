"""Pieces of work on machines that may die: so many at a time, begun again elsewhere where one is lost, a few times.

Left out on purpose: what runs them (ray_pool.py).
"""

import pickle
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tiltlab.errors import Stopped, UserError
from tiltlab.system.process_pool import STOPPED

TRIES = 4
"""Of a piece whose worker or node dies."""

APART = 45.0
"""Seconds after which a piece of a lost node is begun elsewhere: the node may only be cut off, and its worker write."""

GO_ON = "what was saved is kept: give the same command again, on nodes that are there, to go on"


class Running:
    """Pieces that run, those that are to, and what becomes of them.

    ask: called as ask("start", piece number); ask("poll"), which returns how many pieces there is room for and what has
        happened: ("told", number, *news), ("ended", number, `outcome` of it) or ("lost", number, what, whether it may
        be alive and only cut off); and ask("stop"), which returns those that will never begin.
    pieces: how many.
    on_progress, asked: as run_all has them.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        pieces: int,
        on_progress: Callable[..., None],
        asked: Callable[[], bool],
    ) -> None:
        self._ask, self._on_progress, self._asked = ask, on_progress, asked
        self._todo = deque(range(pieces))
        self._later: list[tuple[float, int]] = []
        self._running: set[int] = set()
        self._tries: Counter[int] = Counter()
        self._error: BaseException | None = None
        self._stopped = False

    def run(self, jobs: int) -> None:
        """Have all pieces done, so many at a time. Raises as run_all does."""
        take: dict[str, Callable[..., None]] = {"told": self._on_progress, "ended": self._ended, "lost": self._lost}
        room = jobs
        while self._todo or self._later or self._running:
            self._heed()
            self._begin(min(jobs, room))
            room, messages = self._ask("poll")
            for kind, number, *news in messages:
                take[kind](number, *news)
            if not room and not self._running and not self._stopped:
                self._failed(UserError(f"no node is left that could do the work; {GO_ON}"))
        if self._error is None and self._asked():
            self._error = Stopped(STOPPED)
        if self._error:
            raise self._error

    def _heed(self) -> None:
        """Once somebody asked for it or a piece failed, the others are told to stop."""
        if not self._stopped and (self._error or self._asked()):
            self._stopped = True
            self._todo.clear()
            self._later.clear()
            self._running -= self._ask("stop")

    def _begin(self, most: int) -> None:
        for when, number in [*self._later]:
            if when <= time.monotonic():
                self._later.remove((when, number))
                self._todo.appendleft(number)
        while self._todo and len(self._running) < most:
            number = self._todo.popleft()
            self._running.add(number)
            self._tries[number] += 1
            self._ask("start", number)

    def _ended(self, number: int, message: bytes) -> None:
        self._running.discard(number)
        _, error = pickle.loads(message)  # of `outcome`'s making
        if error is None:
            self._on_progress(number, "done", 0, 0)
        else:
            self._failed(error)

    def _lost(self, number: int, what: str, is_apart: bool) -> None:
        """what: died. is_apart: it may be alive, and not be heard."""
        self._running.discard(number)
        if self._stopped:
            return
        if self._tries[number] == TRIES:
            self._failed(UserError(f"{what} was lost, as often as it is tried ({TRIES} times); {GO_ON}"))
            return
        self._later.append((time.monotonic() + APART * is_apart, number))
        again = (
            f"{what} was lost; it goes on elsewhere from its last checkpoint (try {self._tries[number] + 1} of {TRIES})"
        )
        self._on_progress(number, "waiting", 0, 1, again)

    def _failed(self, error: BaseException) -> None:
        if self._error is None or isinstance(self._error, Stopped):
            self._error = error
