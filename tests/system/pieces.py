"""Pieces of work that tests hand to a pool. Its processes import this module, so it brings nothing heavy."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes import wait_until, write
from tiltlab.errors import Stopped
from tiltlab.system.handing_over import Piece
from tiltlab.system.process_pool import run_all

Tell = Callable[..., None]
Stopping = Callable[[], bool]


def leaves_a_file(folder: Path, *, tell: Tell, stopping: Stopping, device: str) -> None:
    tell("writing", 1, 2, f"on {device}")
    write(str(folder / f"{os.getpid()}-{time.monotonic_ns()}"), device)


def saves_when_asked(folder: Path, *, tell: Tell, stopping: Stopping, device: str) -> None:
    write(str(folder / "begun"), str(os.getpid()))
    wait_until(stopping)
    write(str(folder / "saved"), "")
    raise Stopped("saved")


def does_not_stop(folder: Path, *, tell: Tell, stopping: Stopping, device: str) -> None:
    write(str(folder / "begun"), str(os.getpid()))
    time.sleep(3600)


def killed_while_it_writes(folder: Path, *, tell: Tell, stopping: Stopping, device: str) -> None:
    wait_until((folder / "begun").exists)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        tell("x" * 10**7, 0, 1)


def ends_its_process(folder: Path, *, tell: Tell, stopping: Stopping, device: str) -> None:
    wait_until((folder / "begun").exists)
    os._exit(5)


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fails(folder: Path, error: type[Exception], *, tell: Tell, stopping: Stopping, device: str) -> None:
    wait_until((folder / "begun").exists)
    raise error(1, 2)


def begins(folder: Path, device: str) -> None:
    write(str(folder / f"{os.getpid()}-begins"), device)


def nothing_first(device: str) -> None: ...


def run(*pieces: Piece, jobs: int = 2, begin: Callable[[str], None] = nothing_first) -> list[tuple[Any, ...]]:
    told: list[tuple[Any, ...]] = []
    run_all(pieces, jobs=jobs, begin=begin, devices=["one", "two"], on_progress=lambda *news: told.append(news))
    return told
