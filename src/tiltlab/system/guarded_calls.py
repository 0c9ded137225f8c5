"""Calls that may hang, crash or kill their process, each in a worker that is killed at its deadline.

Every worker has a pipe of its own and shares no lock with another: whenever and however one dies, idle or at work, the
others do not notice, and it is started anew when it is next needed. No thread waits on them, so that Ctrl-C ends a call
at once.

Left out on purpose: security. A worker is a process with this user's rights; what runs in it is a library that chokes
on strange input, or the user's own function, and never text from a model.
"""

import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from queue import Empty, LifoQueue
from typing import Any, Literal, NamedTuple

from tiltlab.errors import UserError, said
from tiltlab.system.program import Parent, Program

MEMORY = 4 * 2**30
"""Bytes of address space that a worker may take (on Linux): what wants more gets a MemoryError, and not the machine."""

MOST_WORKERS = 8

STARTING = 60.0
"""Seconds that a worker may take for its imports."""

STARTS = 3
"""Starts in a row that may fail: one may have been killed from outside; where three were, every one will be."""


@dataclass(frozen=True)
class Failed:
    """A call that failed.

    reason: "timeout" at its deadline, "error" where it raised or its process died.
    said: what it did, in words that follow its name.
    """

    reason: Literal["timeout", "error"]
    said: str


def call_all(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    deadline: float,
    warm: tuple[str, ...],
    memory: int = MEMORY,
    path: tuple[str, ...] = (),
) -> list[Any]:
    """function(*arguments[i]) for every i, side by side, in order; `Failed` in the place of a call that failed, which
    costs no other call anything but time.

    function: must be importable by name; what it returns must be picklable.
    arguments: of each call; must be picklable.
    deadline: seconds for each call, from its start.
    warm: modules that each worker imports before the clock of its first call starts.
    memory: bytes of address space that a worker may take.
    path: folders where it looks for modules first, before those of sys.path.

    Safe to call from several threads at once, and in any process: a daemon, a fork, one without a main guard. Raises
    UserError where no worker can be started.
    """
    return _pool(_Kind(warm, memory, path)).call_all(
        [_message(function, args, deadline) for args in arguments], deadline
    )


def call_once(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    deadline: float,
    memory: int = MEMORY,
    path: tuple[str, ...] = (),
) -> Any:
    """function(*arguments) in a worker of its own, or `Failed`.

    deadline, memory, path, and what is raised: as for `call_all`.
    """
    pool = _Pool(_Kind((), memory, path), 1)
    try:
        return pool.call_all([_message(function, arguments, deadline)], deadline)[0]
    finally:
        pool.kill()


def _message(function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float) -> bytes | Failed:
    try:
        return pickle.dumps((function, arguments, deadline))
    except Exception as error:  # what cannot be pickled
        return Failed("error", f"raised {said(error)}")


class _Kind(NamedTuple):
    """Workers of one kind are interchangeable."""

    warm: tuple[str, ...]
    memory: int
    path: tuple[str, ...]


class _Worker:
    """One process, started when it is needed. One call at a time."""

    def __init__(self, kind: _Kind) -> None:
        self._kind = kind
        self.program: Program | None = None

    def call(self, message: bytes, deadline: float) -> Generator[float, bool, Any]:
        """Yields how many seconds it waits for the program's pipe, and is sent whether something came; returns what the
        call returned, or Failed."""
        program = yield from self._begin(message)
        if not (yield deadline):
            self.kill()
            return Failed("timeout", f"gave no answer within {deadline:g} s")
        try:
            return pickle.loads(program.pipe.recv_bytes())  # of `_answer`'s making
        except (EOFError, OSError):
            return Failed("error", f"killed its process (exit code {self.kill(patience=1.0)})")
        except Exception as error:
            return Failed("error", f"raised {said(error)}")

    def _begin(self, message: bytes) -> Generator[float, bool, Program]:
        """Returns once a program has the call in hand: what killed it before that was not the call."""
        why = ""
        for _ in range(STARTS):
            program = self.program = self.program or Program(_work, *self._kind[:2], path=self._kind.path)
            try:
                program.pipe.send_bytes(message)
                if not (yield STARTING):
                    why = f"it was not ready within {STARTING:g} s"
                elif not (why := program.pipe.recv_bytes().decode()):
                    return program
                self.kill()
            except (EOFError, OSError):
                why = f"it ended with exit code {self.kill(patience=1.0)} before it was ready"
        raise UserError(f"no worker process can be started: {why} (the Python of {sys.executable})")

    def kill(self, patience: float = 0.0) -> int | None:
        """Returns the exit code: the process's own, where it ends by itself within `patience` seconds."""
        program, self.program = self.program, None
        return program.kill(patience) if program else None


@dataclass(eq=False)
class _Call:
    """A call under way: the how-manieth, on which worker, its next steps, and until when it waits for the pipe."""

    index: int
    worker: _Worker
    steps: Generator[float, bool, Any]
    until: float

    @property
    def pipe(self) -> Any:
        assert self.worker.program is not None
        return self.worker.program.pipe


class _Pool:
    """Workers for whoever has calls: one is taken by one thread at a time."""

    def __init__(self, kind: _Kind, size: int) -> None:
        self._workers = [_Worker(kind) for _ in range(size)]
        self._idle: LifoQueue[_Worker] = LifoQueue()  # the last one first: the rest are started when they are needed
        for worker in self._workers:
            self._idle.put(worker)

    def call_all(self, messages: Sequence[bytes | Failed], deadline: float) -> list[Any]:
        answers: list[Any] = list(messages)
        todo = deque(i for i, message in enumerate(messages) if isinstance(message, bytes))
        running: list[_Call] = []
        try:
            while todo or running:
                while todo and (worker := self._take(wait=not running)):
                    index = todo.popleft()
                    call = _Call(index, worker, worker.call(answers[index], deadline), 0.0)
                    running.append(call)
                    call.until = time.monotonic() + next(call.steps)
                self._advance(running, answers)
        finally:  # for one who was interrupted
            for call in running:
                call.worker.kill()
                self._idle.put(call.worker)
        return answers

    def _advance(self, running: list[_Call], answers: list[Any]) -> None:
        """Wait for something to happen; the calls that then have their answer are running no more."""
        soonest = min(call.until for call in running) - time.monotonic()
        ready = connection.wait([call.pipe for call in running], max(0.0, soonest))
        for call in list(running):
            came = call.pipe in ready
            if not came and time.monotonic() < call.until:
                continue
            try:
                call.until = time.monotonic() + call.steps.send(came)
            except StopIteration as end:
                answers[call.index] = end.value
                running.remove(call)
                self._idle.put(call.worker)

    def _take(self, *, wait: bool) -> _Worker | None:
        with suppress(Empty):
            return self._idle.get(block=wait)
        return None

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()


_pools: dict[_Kind, _Pool] = {}
_lock = threading.Lock()


def _pool(kind: _Kind) -> _Pool:
    """The one of this process, as many workers as there are cores."""
    with _lock:  # two threads that come first at once must not make two pools
        if kind not in _pools:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            _pools[kind] = _Pool(kind, max(1, min(MOST_WORKERS, cores)))
        return _pools[kind]


def _forget() -> None:
    """A forked child has workers of its own; its parent's may be in the midst of something, and so may the lock."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget)


# In the worker


def _work(parent: Parent, warm: tuple[str, ...], memory: int) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with suppress(ImportError, ValueError, OSError):  # no such limit on this system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    broken = ""
    for module in warm:
        try:
            importlib.import_module(module)
        except BaseException as error:
            broken = broken or f"importing {module} raised {said(error)}"
    while True:
        message = parent.receive()
        parent.send(broken.encode())
        parent.send(_answer(message))


def _answer(message: bytes) -> bytes:
    try:
        function, arguments, deadline = pickle.loads(message)  # of the parent's making
        # The parent kills this process at the deadline. Where it was killed itself, a call that holds the lock of
        # Python, as a regular expression does, keeps that from being noticed: an alarm that nobody handles ends it.
        signal.setitimer(signal.ITIMER_REAL, deadline + 5)
        return pickle.dumps(function(*arguments))
    except BaseException as error:  # a library's time limit may be one; a user's function may exit
        return pickle.dumps(Failed("error", f"raised {said(error)}"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
