"""A piece of work on several ranks of this machine: programs of our own that start, stop and end together.

The ranks find each other by a store that this process keeps, on a port that the system chose, as torchrun's do. A stop
is told to rank 0, which tells the others (`stopping` is a collective). Where one of them dies or raises an error, the
others may wait for it for ever, so they are killed; and all of them end when this process ends.

Left out on purpose: ranks that somebody else has started (torchrun.py), and trying again.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any

from tiltlab.errors import Stopped, UserError, said
from tiltlab.system.handing_over import outcome, pickled, teller
from tiltlab.system.memory import tune
from tiltlab.system.program import Parent, Program, how_ended
from tiltlab.system.world import joined

RankPiece = Callable[..., None]
"""Called as piece(world=..., tell=..., stopping=..., device=...) on every rank. `stopping` is a collective."""

HOST = "127.0.0.1"

GRACE = 2.0
"""Seconds in which what happened first may still show: whoever waited for a rank that died says so at once, too."""

ENDING = 60.0
"""Seconds that ranks may take to end, once one of them has come to its end."""

DYING = 5.0
"""Seconds that a rank may take to end, once it has closed its pipe."""


class RankFailed(Exception):
    """A rank raised an error.

    rank: which, as text before what the error says.
    error: the error, which is the cause as well.
    """

    def __init__(self, rank: str, error: Exception) -> None:
        super().__init__(rank + said(error))
        self.rank, self.error, self.__cause__ = rank, error, error


def run_on_ranks(
    piece: RankPiece,
    *,
    devices: Sequence[str],
    begin: Callable[[str], None],
    tell: Callable[..., None],
    stopping: Callable[[], bool],
) -> None:
    """Do a piece of work on one rank a device, and return once all have done it.

    piece, begin: must be picklable, and made of what is importable.
    devices: as torch names them, that of rank 0 first.
    begin: called as begin(device) on each rank before anything else.
    tell: told what rank 0 tells.
    stopping: asked again and again whether the ranks are to save and stop.

    Raises Stopped where they did, UserError as a rank raised it, and where a rank died; RankFailed where one raised
    another error.
    """
    (message,) = pickled([piece])
    import torch.distributed as dist

    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    ranks: list[Program] = []
    try:
        for rank, device in enumerate(devices):
            ranks.append(Program(_rank, _told(rank, len(devices), store.port), begin, device, message))
        _Watch(ranks, tell, stopping).until_all_ended()
        for program in ranks:
            program.kill(patience=ENDING)
    finally:
        for program in ranks:
            program.kill()


def _told(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of a rank. Ranks of one machine talk over its loopback, whatever its name resolves to."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME") or ("lo0" if sys.platform == "darwin" else "lo"),
    }


class _Watch:
    """Ranks at work, until each has said how it ended; shorter where one of them died or failed."""

    def __init__(self, ranks: Sequence[Program], tell: Callable[..., None], stopping: Callable[[], bool]) -> None:
        self._ranks, self._tell, self._stopping = ranks, tell, stopping
        self._going = dict(enumerate(ranks))
        self._died: list[UserError] = []
        self._failed: list[BaseException] = []
        self._stopped: Stopped | None = None
        self._patience = float("inf")

    def until_all_ended(self) -> None:
        """Raises what happened first."""
        was_told = False
        while self._going and time.monotonic() < self._patience:
            if not was_told and self._stopping():
                was_told = True
                with suppress(OSError):  # it has died, as its pipe will tell
                    self._ranks[0].pipe.send_bytes(b"")
            by_pipe = {program.pipe: rank for rank, program in self._going.items()}
            for pipe in connection.wait(list(by_pipe), timeout=0.2):
                self._take(by_pipe[pipe])  # type: ignore[index]
        if first := [*self._died, *self._failed]:
            raise first[0]
        if self._going:
            raise self._death(min(self._going), f"did not end {ENDING:g} seconds after another one")
        if self._stopped:
            raise self._stopped

    def _take(self, rank: int) -> None:
        program = self._going[rank]
        try:
            kind, news = pickle.loads(program.pipe.recv_bytes())  # of `outcome`'s making
        except (EOFError, OSError):
            self._died.append(self._death(rank, how_ended(program.kill(patience=DYING))))
            self._ended(rank, GRACE)
            return
        if kind == "told":
            self._tell(*news)
        elif news is None or isinstance(news, Stopped):
            self._stopped = news
            self._ended(rank, ENDING)
        else:
            self._failed.append(news if isinstance(news, UserError) else self._failure(rank, news))
            self._ended(rank, GRACE)

    def _ended(self, rank: int, patience: float) -> None:
        """The others have so many seconds left."""
        del self._going[rank]
        self._patience = min(self._patience, time.monotonic() + patience)

    def _death(self, rank: int, how: str) -> UserError:
        return UserError(
            f"rank {rank} of {len(self._ranks)} {how}, and the others with it; what they had saved is kept: "
            "give the same command again to go on"
        )

    def _failure(self, rank: int, error: BaseException) -> RankFailed:
        raised = error if isinstance(error, Exception) else RuntimeError(said(error))
        return RankFailed(f"rank {rank} of {len(self._ranks)}: ", raised)


# In a rank


def _rank(parent: Parent, told: Mapping[str, str], begin: Callable[[str], None], device: str, message: bytes) -> None:
    os.environ |= told
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of several ranks would overlap
    tune()
    begin(device)
    with joined(device) as world:
        given: dict[str, Any] = {
            "world": world,
            "tell": teller(parent) if world.is_first else _to_nobody,
            "stopping": lambda: world.of_first(parent.has_sent()),
            "device": device,
        }
        ended = outcome(message, **given)
        parent.send(ended)
        if not isinstance(pickle.loads(ended)[1], Stopped | None):
            while True:  # the others would take our leaving for the cause; we are killed
                parent.receive()


def _to_nobody(*_: Any) -> None:
    pass
