"""Where a job runs now, and how long it has been worked on: place.json of its folder.

It names a machine only while something runs there: folders are passed on. Where a process is killed it stays as it was;
so whoever reads it asks for the process, or looks how long ago the job's files changed.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tiltlab.errors import UserError
from tiltlab.storage import shapes
from tiltlab.storage.files import Json, write_json
from tiltlab.storage.shaped import or_else, read_shaped
from tiltlab.system.running import is_running, number_space

NAME = "place.json"


@dataclass(frozen=True)
class Where:
    """Where something runs.

    host: the machine's name.
    process: its number there, of rank 0 where there are several ranks.
    space: what numbers of processes are counted in there (`number_space`).
    devices: one or more, as the machine numbers them.
    ranks: how many processes work on it.
    since: when it began there, in seconds since 1970.
    """

    host: str
    process: int
    space: str
    devices: tuple[str, ...]
    ranks: int
    since: float

    @property
    def is_here(self) -> bool:
        """Whether that is on this machine, so that its process can be asked for."""
        return (self.host, self.space) == (socket.gethostname(), number_space())

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended."""
        return self.is_here and not is_running(self.process, self.since)


@dataclass(frozen=True)
class Place:
    """What place.json tells.

    seconds: of all tries of the job that have ended.
    at: where it runs, or was killed; None where no try is under way.
    """

    seconds: float
    at: Where | None

    @property
    def ended(self) -> Literal["stopped", "killed"] | None:
        """How the last try ended, of what is not done; None where it runs as far as can be told from here."""
        if self.at is None:
            return "stopped"
        return "killed" if self.at.is_gone else None


@contextmanager
def at_work(folder: Path, devices: Sequence[str], ranks: int = 1) -> Iterator[None]:
    """Have place.json say that a job runs in this process, until the block ends.

    folder: of the job, which is there.
    devices: that it runs on, as the machine numbers them.
    ranks: processes that work on it. One of them calls this.

    Raises UserError where the file cannot be written.
    """
    path, before, began = folder / NAME, _worked(folder), time.perf_counter()
    here = Where(socket.gethostname(), os.getpid(), number_space(), tuple(devices), ranks, time.time())
    write_json(path, {"seconds": before, "at": asdict(here)})
    try:
        yield
    finally:
        with suppress(UserError):  # a full disk, which the block has told
            write_json(path, {"seconds": before + time.perf_counter() - began})


def place_of(folder: Path) -> Place | None:
    """What a job's place.json tells; None where there is none: no try, or one by an older version.

    Raises UserError for a damaged one.
    """
    path = folder / NAME
    if not path.exists():
        return None
    with or_else("remove it: it says only where the job runs"):
        kept = read_shaped(path, shapes.Place)
    at = kept.get("at")
    return Place(kept["seconds"], at and _where(at))


def _where(at: Json) -> Where:
    return Where(at["host"], at["process"], at["space"], tuple(at["devices"]), at["ranks"], at["since"])


def _worked(folder: Path) -> float:
    """Seconds of earlier tries; one that was killed worked until the last change of its files."""
    try:
        place = place_of(folder)
    except UserError:  # no job is to fail for it
        return 0.0
    if place is None or place.at is None:
        return place.seconds if place else 0.0
    changed = max((path.stat().st_mtime for path in folder.glob("*") if path.is_file()), default=0.0)
    return place.seconds + max(0.0, changed - place.at.since)
