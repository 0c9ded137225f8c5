"""Whether a process that left something behind still runs."""

import math
import os
import time
from pathlib import Path


def is_running(process: int, since: float = math.inf) -> bool:
    """Whether a process runs. One that has ended does not, though nobody has asked for its exit code yet: where the
    first process of a container never asks, its number stays taken for good.

    since: seconds since 1970 at which it must have run already: numbers of processes that are gone are given again.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    state, began = _told(process)
    return state != "Z" and began <= since + 1


def number_space() -> str:
    """What numbers of processes are counted in here: a container has numbers of its own. "" where the system does not
    say."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _told(process: int) -> tuple[str, float]:
    """The state of a process, "Z" for one that has ended, and when it began, in seconds since 1970; nothing, and minus
    infinity, where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of the line, of which two are left out
        return fields[0], time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return "", -math.inf
