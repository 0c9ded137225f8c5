"""Running independent pieces of work side by side, in processes of their own, so that any of them may die.

One piece a GPU, or a few a CPU with the cores shared out between them (two processes with one thread each are faster
than one with two). Ctrl-C asks every piece to save and stop; a second one ends them where they are.

Left out on purpose: retries, and machines other than this one.
"""

import multiprocessing as mp
import os
import signal
import sys
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
    pieces: Sequence[Piece],
    *,
    jobs: int,
    threads: int,
    devices: Sequence[str],
    on_progress: Callable[..., None],
) -> None:
    """Run all pieces, `jobs` at a time, in this process where that is one, with `threads` CPU threads each.

    `on_progress` is told (piece number, doing, done, total, and what else the piece tells); total 0 means done. Sums on
    CPU come out a little different with another number of threads, so a study keeps to one number, however few pieces
    are left.

    Raises Stopped if it was asked to stop, or the first error of a piece once the others have saved and stopped.
    """
    if jobs == 1:
        _run_here(pieces, threads, devices[0], on_progress)
        return
    context = mp.get_context("spawn")
    stop = context.Event()
    with _ctrl_c_sets(stop):
        _run_pool(pieces, jobs, threads, devices, on_progress, context, stop)


def _run_here(pieces: Sequence[Piece], threads: int, device: str, on_progress: Callable[..., None]) -> None:
    stop = threading.Event()
    with _ctrl_c_sets(stop):
        _use(threads, device)
        for number, piece in enumerate(pieces):
            if stop.is_set():
                raise Stopped("stopped before all was done")
            piece(tell=partial(on_progress, number), stopping=stop.is_set, device=device)
            on_progress(number, "done", 0, 0)


def _run_pool(
    pieces: Sequence[Piece],
    jobs: int,
    threads: int,
    devices: Sequence[str],
    on_progress: Callable[..., None],
    context: Any,
    stop: Event,
) -> None:
    messages = context.Queue()
    free_devices = context.Queue()
    for worker in range(jobs):
        free_devices.put(devices[worker % len(devices)])
    listener = threading.Thread(target=_listen, args=(messages, on_progress), daemon=True)
    listener.start()
    start = (messages, free_devices, stop, threads)
    error: BaseException | None = None
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as pool:
        with _sigint_ignored():  # what is spawned inherits that: Ctrl-C reaches the whole group, only the parent acts
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
    listener.join(timeout=5)  # a worker that was killed while it wrote may have left the queue locked
    if isinstance(error, BrokenProcessPool):
        raise UserError(
            "a worker process was killed (for want of memory?); what it had saved is kept: "
            "give the same command again to go on, with a smaller --jobs if memory was short"
        ) from error
    if error is None and stop.is_set():
        error = Stopped("stopped before all was done")
    if error:
        raise error


def _listen(messages: Any, on_progress: Callable[..., None]) -> None:
    while (message := messages.get()) is not None:
        on_progress(*message)


# In the worker

_here: dict[str, Any] = {}


def _start_worker(messages: Any, free_devices: Any, stop: Event, threads: int) -> None:
    tune()
    os.environ.setdefault("TQDM_DISABLE", "1")  # the parent shows progress; bars of several workers would overlap
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _here.update(messages=messages, stop=stop, device=free_devices.get())
    _use(threads, _here["device"])


def _die_with_parent() -> None:
    # Were the parent killed and its workers not, the next try would find them still writing.
    parent = mp.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _use(threads: int, device: str) -> None:
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))  # fewer where OMP_NUM_THREADS says so
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # or what names no device of its own would land on the first


def _work(number: int, piece: Piece) -> None:
    if _here["stop"].is_set():
        raise Stopped("stopped before all was done")

    def tell(doing: str, done: int, total: int, *news: str) -> None:
        _here["messages"].put((number, doing, done, total, *news))

    piece(tell=tell, stopping=_here["stop"].is_set, device=_here["device"])
    tell("done", 0, 0)


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ctrl_c_sets(stop: Event | threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stop`, a second one ends this process there and then (its workers die with it)."""

    def asked(*_: object) -> None:
        if stop.is_set():
            sys.stderr.write("\x1b[?25h\n" if sys.stderr.isatty() else "")  # progress bars had hidden the cursor
            os._exit(130)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
