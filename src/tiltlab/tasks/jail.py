"""Calls that may hang, crash or kill their process, each in a worker that is killed at its deadline.

Left out on purpose: security. A worker is a process with this user's rights; what runs in it is a library that chokes
on strange input, or the user's own function, and never text from a model.
"""

import importlib
import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as Expired
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection
from typing import Any, Literal

from pebble import ProcessExpired, ProcessPool

MEMORY = 4 * 2**30
"""Bytes of address space that a worker may take (on Linux): what wants more gets a MemoryError, and not the machine."""


@dataclass(frozen=True)
class Failed:
    """A call that came to nothing: "timeout" at its deadline, "error" where it raised or its process died."""

    reason: Literal["timeout", "error"]
    said: str


def call_all(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], deadline: float, warm: str
) -> list[Any]:
    """function(*arguments[i]) for every i, side by side, in order; `Failed` in the place of a call that failed, which
    costs no other call anything but time. Each has `deadline` seconds from its start.

    warm: a module that each worker imports before its clock starts. function must be importable by name, arguments and
    results picklable. Safe to call from several threads at once.
    """
    if not arguments:
        return []
    with _lock:  # two threads that come first at once must not start two pools
        pool = _pool(os.getpid(), warm)
    futures = [pool.schedule(function, args=args, timeout=deadline) for args in arguments]
    return [_result(future, deadline) for future in futures]


def _result(future: Any, deadline: float) -> Any:
    try:
        return future.result()
    except Expired:
        return Failed("timeout", f"no answer within {deadline:g} s")
    except ProcessExpired as error:
        return Failed("error", f"its process died with exit code {error.exitcode}")
    except Exception as error:  # whatever the function raised
        return Failed("error", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])


_lock = threading.Lock()


@cache
def _pool(process: int, warm: str) -> ProcessPool:  # noqa: ARG001
    """One for each process that asks (a forked child cannot use its parent's) and module."""
    workers = max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    # never fork: the parent has torch's threads, and locks that they may hold
    return ProcessPool(workers, initializer=_start, initargs=(warm,), context=mp.get_context("spawn"))


def _start(warm: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):  # no such limit on this system
        pass
    importlib.import_module(warm)


def _die_with_parent() -> None:
    parent = mp.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
