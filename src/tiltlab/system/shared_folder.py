"""A folder in shared memory, for what two processes of a machine hand to each other, that does not outlive its owner.

One whose owner was killed (SIGKILL leaves no time to tidy up) is removed when the next one is made.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

from tiltlab.system.running import is_running

PREFIX = "tiltlab-"
LARGEST = 2**31 - 1
"""No process has a larger number: a folder named so is somebody else's."""


class SharedFolder:
    """A new folder that only this user can read: in /dev/shm where there is one, else where temporary files are.

    path: of the folder, until `close`, or the end of this process.
    """

    def __init__(self) -> None:
        parent = _parent()
        _remove_stale(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        held = os.open(self.path, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.close = Finalize(self, _removed, (self.path, held), exitpriority=5)  # after the programs that look into it


def _parent() -> Path:
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _removed(path: Path, held: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(held)


def _remove_stale(parent: Path) -> None:
    """A folder is stale where no process has the number in its name and none holds its lock: the first alone would take
    that of another container with the same shared memory, the second alone one that is just being made."""
    for path in parent.glob(f"{PREFIX}*-*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if not owner.isdecimal() or int(owner) > LARGEST or is_running(int(owner)):
            continue
        with suppress(OSError):  # somebody else's, or held, or gone meanwhile
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)
