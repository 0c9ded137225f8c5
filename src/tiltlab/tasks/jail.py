"""Calls that may hang, crash or kill their process, each in a worker that is killed at its deadline.

Every worker has a pipe of its own and shares no lock with another: whenever and however one dies, idle or at work, the
others do not notice, and it is started anew when it is next needed.

Left out on purpose: security. A worker is a process with this user's rights; what runs in it is a library that chokes
on strange input, or the user's own function, and never text from a model.
"""

import importlib
import multiprocessing as mp
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection
from multiprocessing.util import Finalize
from queue import LifoQueue
from typing import Any, Literal

MEMORY = 4 * 2**30
"""Bytes of address space that a worker may take (on Linux): what wants more gets a MemoryError, and not the machine."""

MOST_WORKERS = 8

STARTING = 60.0
"""Seconds that a worker may take for its imports."""


@dataclass(frozen=True)
class Failed:
    """A call that came to nothing: "timeout" at its deadline, "error" where it raised or its process died. `said`: what
    it did, in words that follow its name."""

    reason: Literal["timeout", "error"]
    said: str


def call_all(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    deadline: float,
    warm: tuple[str, ...],
    memory: int = MEMORY,
) -> list[Any]:
    """function(*arguments[i]) for every i, side by side, in order; `Failed` in the place of a call that failed, which
    costs no other call anything but time. Each has `deadline` seconds from its start.

    warm: modules that each worker imports before the clock of its first call starts. memory: bytes of address space
    that a worker may take. function must be importable by name, arguments and results picklable. Safe to call from
    several threads at once.
    """
    if not arguments:
        return []
    with _lock:  # two threads that come first at once must not make two pools
        pool = _pool(os.getpid(), warm, memory)
    futures = [pool.threads.submit(pool.call, function, args, deadline) for args in arguments]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:  # for one who was interrupted, and waits no longer
            future.cancel()


def call_once(function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float, memory: int = MEMORY) -> Any:
    """function(*arguments) in a worker of its own, or `Failed`; as `call_all`."""
    worker = _Worker((), memory)
    try:
        return worker.call(function, arguments, deadline)
    finally:
        worker.kill()


def said(error: BaseException) -> str:
    """An error in one line of no great length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


_lock = threading.Lock()
_processes = threading.Lock()
"""Held to start and to end a process: multiprocessing's book of children is not made for several threads."""


class _Worker:
    """One process, started when it is needed, and the pipe to it. One call at a time."""

    def __init__(self, warm: tuple[str, ...], memory: int) -> None:
        self._setting = (warm, memory)
        self._process: Any = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float) -> Any:
        try:
            if not self._alive() and not self._start():
                return Failed("timeout", f"was not imported within {STARTING:g} s")
            self._pipe.send((function, arguments))
            if self._pipe.poll(deadline):
                return self._pipe.recv()
            self.kill()
            return Failed("timeout", f"gave no answer within {deadline:g} s")
        except (EOFError, OSError):
            return Failed("error", f"killed its process (exit code {self.kill(patience=1.0)})")
        except Exception as error:  # what cannot be pickled
            return Failed("error", f"raised {said(error)}")

    def kill(self, patience: float = 0.0) -> int | None:
        """Returns the exit code: the process's own, where it ends by itself within `patience` seconds."""
        with _processes:
            if self._process is None:
                return None
            self._process.join(patience)
            self._process.kill()
            self._process.join()
            self._pipe.close()
            code: int | None = self._process.exitcode
            self._process = None
        return code

    def _alive(self) -> bool:
        with _processes:
            return self._process is not None and self._process.is_alive()

    def _start(self) -> bool:
        """Whether a new process came as far as to wait for its first call."""
        self.kill()  # what is left of the one before
        context = mp.get_context("spawn")  # never fork: the parent has torch's threads, and locks that they may hold
        with _processes:
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, *self._setting), name="tiltlab jail")
            self._process.start()
            theirs.close()
        if self._pipe.poll(STARTING):
            self._pipe.recv()
            return True
        self.kill()
        return False


class _Pool:
    """As many workers as there are cores, and a thread for each to wait on it."""

    def __init__(self, warm: tuple[str, ...], memory: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = [_Worker(warm, memory) for _ in range(max(1, min(MOST_WORKERS, cores)))]
        self.threads = ThreadPoolExecutor(len(workers), thread_name_prefix="tiltlab jail")
        self._idle: LifoQueue[_Worker] = LifoQueue()  # the last one first: the rest are started when they are needed
        for worker in workers:
            self._idle.put(worker)
        Finalize(self, _kill_all, args=(workers,), exitpriority=10)  # multiprocessing would wait for them for ever

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], deadline: float) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(function, arguments, deadline)
        finally:
            self._idle.put(worker)


@cache
def _pool(process: int, warm: tuple[str, ...], memory: int) -> _Pool:  # noqa: ARG001
    """One for each process that asks (a forked child cannot use its parent's) and choice of modules."""
    return _Pool(warm, memory)


def _kill_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.kill()


# In the worker


def _work(pipe: Any, warm: tuple[str, ...], memory: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(ImportError, ValueError, OSError):  # no such limit on this system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for module in warm:
        with suppress(BaseException):  # the call will say it
            importlib.import_module(module)
    pipe.send("ready")
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:  # the parent wants no more
            return
        pipe.send_bytes(_answer(message))


def _answer(message: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(message)  # of the parent's making
        return pickle.dumps(function(*arguments))
    except BaseException as error:  # a library's time limit may be one; a user's function may exit
        return pickle.dumps(Failed("error", f"raised {said(error)}"))


def _die_with_parent() -> None:
    parent = mp.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
