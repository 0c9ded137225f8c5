"""What a writer that was killed leaves of a file: NAME.RANDOM.PROCESS.part."""

import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def clear_parts(parts: Iterable[Path]) -> None:
    """Remove those whose writers were killed.

    parts: files that are being written, or were.
    """
    for part in parts:
        process = part.name.split(".")[-2]
        with suppress(FileNotFoundError):  # its writer was done
            if process.isdecimal() and not _is_running(int(process), part.stat().st_mtime):
                part.unlink()


def _is_running(process: int, since: float) -> bool:
    """Whether a process runs, and did at that time: numbers of processes that have ended are given again."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return _started(process) <= since + 1


def _started(process: int) -> float:
    """When a process began, in seconds since 1970; minus infinity where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of the line, of which two are left out
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return -math.inf
