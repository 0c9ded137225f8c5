"""What a writer that was killed leaves of a file: NAME.RANDOM.PROCESS.part."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tiltlab.system.running import is_running


def clear_parts(parts: Iterable[Path]) -> None:
    """Remove those whose writers were killed.

    parts: files that are being written, or were.
    """
    for part in parts:
        process = part.name.split(".")[-2]
        with suppress(FileNotFoundError):  # its writer was done
            if process.isdecimal() and not is_running(int(process), part.stat().st_mtime):
                part.unlink()
