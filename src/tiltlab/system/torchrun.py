"""Ranks that torchrun has started: rank 0 runs the command, and has the others do its pieces of work with it.

Each rank watches the others' processes, since one that waits in a collective of a GPU would not notice that another has
ended. Left out on purpose: ranks on several machines, and going on without torchrun (whose --max-restarts starts all of
them again).
"""

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tiltlab.errors import Stopped, UserError, said
from tiltlab.system.handing_over import pickled
from tiltlab.system.ranks import GRACE, RankPiece
from tiltlab.system.running import is_running
from tiltlab.system.signals import ASKING_TO_END
from tiltlab.system.world import ON_VERL, World, is_rank, joined

EVERY = 0.5
"""Seconds between two looks at the other ranks' processes."""


def ranks_started() -> int:
    """How many ranks torchrun has started, this process one of them; 0 where it has not.

    Raises UserError where they are on several machines.
    """
    if not is_rank():
        return 0
    size = int(os.environ["WORLD_SIZE"])
    if int(os.environ.get("LOCAL_WORLD_SIZE", size)) != size:
        raise UserError(
            "torchrun has started ranks on several machines, and a job has those of one; a job that needs more "
            f"{ON_VERL}"
        )
    return size


class Standing:
    """The ranks that torchrun has started, seen from one of them.

    world: of all of them.
    device: of this one.
    """

    def __init__(self, world: World, device: str) -> None:
        self.world, self._device = world, device
        self._is_over = self._is_busy = False
        threading.Thread(target=self._watch, args=(world.gather(os.getpid()),), daemon=True).start()

    def run(
        self, piece: RankPiece, *, devices: Sequence[str], tell: Callable[..., None], stopping: Callable[[], bool]
    ) -> None:
        """Have all ranks do a piece of work; for rank 0 to call, as it would call `run_on_ranks`.

        devices: as many as there are ranks, each of which has its own already.

        Raises Stopped where they did; FloatingPointError, which comes to all ranks alike; and UserError for what ends
        the others with this rank.
        """
        assert len(devices) == self.world.size
        self.world.of_first(*pickled([piece]))
        self._do(piece, tell, stopping)

    def follow(self) -> None:
        """Do what rank 0 has all ranks do, until it has no more; for the other ranks. Signals are for rank 0."""
        for number in ASKING_TO_END:
            signal.signal(number, lambda *_: None)
        while message := self.world.of_first(b""):
            with suppress(Stopped, FloatingPointError):
                self._do(pickle.loads(message), lambda *_: None, lambda: False)  # of rank 0's making
        self._is_over = True

    def end(self) -> None:
        """Let the other ranks end, where they are not in the midst of a piece of work; for rank 0."""
        self._is_over = True
        if not self._is_busy:
            self.world.of_first(b"")

    def _do(self, piece: RankPiece, tell: Callable[..., None], stopping: Callable[[], bool]) -> None:
        self._is_busy = True
        given: dict[str, Any] = {"world": self.world, "tell": tell, "device": self._device}
        try:
            piece(**given, stopping=lambda: self.world.of_first(stopping()))
        except (Stopped, FloatingPointError):
            self._is_busy = False
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                time.sleep(GRACE)  # it may be that another rank has ended: the watch then says so
                traceback.print_exc()
            raise self._failure(error) from error
        self._is_busy = False

    def _failure(self, error: Exception) -> UserError:
        """What ends all ranks, told by whichever it befell."""
        told = str(error) if isinstance(error, UserError) else said(error)
        if self.world.is_first and isinstance(error, UserError):
            return error
        failure = UserError(
            f"rank {self.world.rank} of {self.world.size}: {told}; the others end with it, and what was saved is kept: "
            "the same command goes on"
        )
        if not self.world.is_first:
            print(failure, file=sys.stderr, flush=True)
        return failure

    def _watch(self, processes: Sequence[int]) -> None:
        """End this process once another rank's has ended; rank 0 says so. (Of rank 0 torchrun does.)"""
        began = time.time()
        while not self._is_over:
            time.sleep(EVERY)
            gone = [rank for rank, process in enumerate(processes) if not is_running(process, began)]
            if gone and not self._is_over:
                if self.world.is_first:
                    print(
                        f"rank {gone[0]} of {self.world.size} has ended (killed, for want of memory?), and the others "
                        "with it; what was saved is kept: the same command goes on",
                        file=sys.stderr,
                        flush=True,
                    )
                os._exit(1)


@contextmanager
def standing(devices: Sequence[str], begin: Callable[[str], None]) -> Iterator[Standing | None]:
    """The ranks that torchrun has started; None where it has not.

    devices: one a rank.
    begin: called as begin(device) before anything else.
    """
    if not is_rank():
        yield None
        return
    device = devices[int(os.environ["LOCAL_RANK"])]
    begin(device)
    with joined(device) as world:
        ranks = Standing(world, device)
        try:
            yield ranks
        finally:
            if world.is_first:
                ranks.end()
