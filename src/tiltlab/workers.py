"""Running independent pieces of work side by side, in processes of their own, so that any of them may die.

One piece a GPU, or a few a CPU with the cores shared out between them (two processes with one thread each are faster
than one with two). Ctrl-C asks every piece to save and stop; a second one ends them where they are.

Left out on purpose: retries, and machines other than this one.
"""

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection
from multiprocessing.synchronize import Event
from typing import Any

from tiltlab.errors import Stopped, UserError
from tiltlab.runtime import tune

Piece = Callable[..., None]
"""Called as piece(tell=..., stopping=..., device=...)."""


def run_all(
    pieces: Sequence[Piece], *, jobs: int, devices: Sequence[str], on_progress: Callable[[int, str, int, int], None]
) -> None:
    """Run all pieces, `jobs` at a time. `on_progress` is told (piece number, doing, done, total); total 0 means done.

    Raises Stopped if it was asked to stop, or the first error of a piece once the others have saved and stopped.
    """
    context = mp.get_context("spawn")
    stop = context.Event()
    with _ctrl_c_sets(stop):
        if jobs == 1:
            for number, piece in enumerate(pieces):
                piece(tell=partial(on_progress, number), stopping=stop.is_set, device=devices[0])
                on_progress(number, "done", 0, 0)
        else:
            _run_pool(pieces, jobs, devices, on_progress, context, stop)


def _run_pool(
    pieces: Sequence[Piece],
    jobs: int,
    devices: Sequence[str],
    on_progress: Callable[[int, str, int, int], None],
    context: Any,
    stop: Event,
) -> None:
    messages = context.Queue()
    free_devices = context.Queue()
    for worker in range(jobs):
        free_devices.put(devices[worker % len(devices)])
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    listener = threading.Thread(target=_listen, args=(messages, on_progress), daemon=True)
    listener.start()
    start = (messages, free_devices, stop, threads)
    error: BaseException | None = None
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as pool:
        waiting: set[Future[None]] = {pool.submit(_work, number, piece) for number, piece in enumerate(pieces)}
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                failed = None if future.cancelled() else future.exception()
                if failed and (error is None or isinstance(error, Stopped)):
                    error = failed
                if failed or stop.is_set():
                    stop.set()
                    for other in waiting:
                        other.cancel()
    messages.put(None)
    listener.join()
    if isinstance(error, BrokenProcessPool):
        raise UserError(
            "a worker process was killed (for want of memory?); what it had saved is kept: "
            "give the same command again to go on, with a smaller --jobs if memory was short"
        ) from error
    if error is None and stop.is_set():
        error = Stopped("stopped before all was done")
    if error:
        raise error


def _listen(messages: Any, on_progress: Callable[[int, str, int, int], None]) -> None:
    while (message := messages.get()) is not None:
        on_progress(*message)


# In the worker

_here: dict[str, Any] = {}


def _start_worker(messages: Any, free_devices: Any, stop: Event, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: only the parent acts on it
    tune()
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))  # fewer where OMP_NUM_THREADS says so
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _here.update(messages=messages, stop=stop, device=free_devices.get())


def _die_with_parent() -> None:
    # Were the parent killed and its workers not, the next try would find them still writing.
    parent = mp.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(number: int, piece: Piece) -> None:
    def tell(doing: str, done: int, total: int) -> None:
        _here["messages"].put((number, doing, done, total))

    piece(tell=tell, stopping=_here["stop"].is_set, device=_here["device"])
    tell("done", 0, 0)


@contextmanager
def _ctrl_c_sets(stop: Event) -> Iterator[None]:
    """The first Ctrl-C sets `stop`, the next one interrupts as usual."""

    def asked(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
