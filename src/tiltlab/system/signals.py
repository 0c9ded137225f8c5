"""What asks this process to end: Ctrl-C, and the SIGTERM and SIGHUP of schedulers, shells and terminals.

Left out on purpose: what is to be saved, and how.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tiltlab.errors import Interrupted, Stopped

ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """In here, each of the signals raises Interrupted."""

    def interrupt(number: int, _: Any) -> None:
        raise Interrupted(number)

    with _handled(interrupt):
        yield


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """In here, the first of the signals is only noted, a second one raises Interrupted.

    Yields a function that says whether one has come. A Stopped that leaves here knows which.
    """
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise Interrupted(number)

    with _handled(note):
        try:
            yield lambda: bool(came)
        except Stopped as stopped:
            stopped.signal = came[0] if came else stopped.signal
            raise


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Outside the main thread nothing is changed: Python lets no other handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING_TO_END}
    ignored = {number for number in ASKING_TO_END[1:] if before[number] is signal.SIG_IGN}  # nohup asks for that
    for number in before.keys() - ignored:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in before.keys() - ignored:
            signal.signal(number, before[number] or signal.SIG_DFL)
