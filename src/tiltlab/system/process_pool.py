"""Running independent pieces of work side by side, in processes of their own, so that any of them may die.

One piece a GPU, or a few a CPU with the cores shared out between them (two processes with one thread each are faster
than one with two). Ctrl-C, SIGTERM or SIGHUP asks every piece to save and stop; a second one ends them where they are.

Left out on purpose: retries, machines other than this one, and what the work is (see `begin`).
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Protocol, TypeVar

from tiltlab.errors import Stopped, UserError
from tiltlab.system.devices import cores_each
from tiltlab.system.handing_over import Piece, outcome, pickled, teller
from tiltlab.system.memory import tune
from tiltlab.system.program import Parent, Program, how_ended
from tiltlab.system.signals import stopped_by_signals

Answer = TypeVar("Answer")

Begin = Callable[[str], None]
"""Called as begin(device), once in each process that works."""

STOPPED = "stopped before all was done"

NO_MORE = b""

ENDING = 60.0
"""Seconds that a worker may take to end, once it has closed its pipe."""


class Pool(Protocol):
    """Where pieces of work run. This module is one: this machine; ray_pool.py has another."""

    def run_all(
        self,
        pieces: Sequence[Piece],
        *,
        jobs: int,
        begin: Begin,
        devices: Sequence[str],
        on_progress: Callable[..., None],
    ) -> None:
        """Run all pieces of work, as `run_all` does."""
        ...

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What a question is answered where the pieces are to run. Raises what it raises."""
        ...

    def threads(self, processes: int) -> int:
        """CPU threads of each of so many processes."""
        ...

    def sharing(self, jobs: int, places: Sequence[str]) -> int:
        """How many of so many jobs side by side share a place."""
        ...


def ask(question: Callable[[], Answer]) -> Answer:
    """What a question is answered here."""
    return question()


def threads(processes: int) -> int:
    """CPU threads of each of so many processes."""
    return cores_each(processes)


def sharing(jobs: int, places: Sequence[str]) -> int:
    """How many of so many jobs side by side share a place."""
    return -(-jobs // len(places))


def run_all(
    pieces: Sequence[Piece],
    *,
    jobs: int,
    begin: Begin,
    devices: Sequence[str],
    on_progress: Callable[..., None],
) -> None:
    """Run all pieces of work, several at a time.

    pieces: with more than one job they and `begin` must be picklable, and made of what is importable.
    jobs: how many run side by side; one runs in this process, more in processes of their own.
    begin: comes before the first piece of each process.
    devices: that the pieces take turns on, at least one.
    on_progress: told (piece number, doing, done, total, and what else the piece tells); total 0 means done.

    Raises Stopped if it was asked to stop, or the first error of a piece once the others have saved and stopped, which
    for a worker that was killed is a UserError.
    """
    with stopped_by_signals() as asked:
        if jobs == 1:
            _run_here(pieces, begin, devices[0], on_progress, asked)
        else:
            _Workers(pieces, on_progress, asked).run(min(jobs, len(pieces)), begin, devices)


def _run_here(
    pieces: Sequence[Piece], begin: Begin, device: str, on_progress: Callable[..., None], asked: Callable[[], bool]
) -> None:
    begin(device)
    for number, piece in enumerate(pieces):
        if asked():
            raise Stopped(STOPPED)
        piece(tell=partial(on_progress, number), stopping=asked, device=device)
        on_progress(number, "done", 0, 0)


@dataclass(eq=False)
class _Worker:
    program: Program
    piece: int | None = None
    """The number of the one that it is at."""


class _Workers:
    """Programs that take a piece each and ask for the next. Whatever is sent to one in the midst of a piece tells it to
    save and stop."""

    def __init__(self, pieces: Sequence[Piece], on_progress: Callable[..., None], asked: Callable[[], bool]) -> None:
        self._todo = deque(enumerate(pickled(pieces)))
        self._on_progress = on_progress
        self._asked = asked
        self._error: BaseException | None = None
        self._stopped = False

    def run(self, jobs: int, begin: Begin, devices: Sequence[str]) -> None:
        working: list[_Worker] = []
        try:
            for number in range(jobs):
                working.append(_Worker(Program(_work, begin, devices[number % len(devices)])))
                self._give(working[-1])
            while working:
                self._heed(working)
                for pipe in connection.wait([worker.program.pipe for worker in working], timeout=0.2):
                    worker = next(worker for worker in working if worker.program.pipe is pipe)
                    if not self._goes_on(worker):
                        working.remove(worker)
        finally:  # for one who was interrupted
            for worker in working:
                worker.program.kill()
        if self._error is None and self._asked():
            self._error = Stopped(STOPPED)
        if self._error:
            raise self._error

    def _heed(self, working: Sequence[_Worker]) -> None:
        """Once somebody asked for it or a piece failed, the others are told to stop."""
        if not self._stopped and (self._error or self._asked()):
            self._stopped = True
            self._todo.clear()
            for worker in working:
                _send(worker.program, NO_MORE)

    def _give(self, worker: _Worker) -> None:
        if self._todo:
            worker.piece, message = self._todo.popleft()
            _send(worker.program, message)
        else:
            worker.piece = None
            _send(worker.program, NO_MORE)

    def _goes_on(self, worker: _Worker) -> bool:
        """Take one message. Whether the worker is still there."""
        try:
            kind, news = pickle.loads(worker.program.pipe.recv_bytes())  # of `outcome`'s making
        except (EOFError, OSError):
            code = worker.program.kill(patience=ENDING)
            if worker.piece is not None:
                self._failed(_killed(code))
            return False
        if kind == "told":
            self._on_progress(worker.piece, *news)
            return True
        if news is None:
            self._on_progress(worker.piece, "done", 0, 0)
        else:
            self._failed(news)
        self._give(worker)
        return True

    def _failed(self, error: BaseException) -> None:
        if self._error is None or isinstance(self._error, Stopped):
            self._error = error


def _send(program: Program, message: bytes) -> None:
    with suppress(OSError):  # it has died, as its pipe will tell
        program.pipe.send_bytes(message)


def _killed(code: int) -> UserError:
    return UserError(
        f"a worker process {how_ended(code)}; what it had saved is kept: "
        "give the same command again to go on, with a smaller --jobs if memory was short"
    )


# In the worker


def _work(parent: Parent, begin: Begin, device: str) -> None:
    tune()
    os.environ.setdefault("TQDM_DISABLE", "1")  # the parent shows progress; bars of several workers would overlap
    begin(device)
    while (message := parent.receive()) != NO_MORE:
        parent.send(outcome(message, tell=teller(parent), stopping=parent.has_sent, device=device))
