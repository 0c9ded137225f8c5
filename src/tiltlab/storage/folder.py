"""A folder that one process writes in at a time, and paths that can be written at all."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tiltlab.errors import UserError, words
from tiltlab.storage.parts import clear_parts
from tiltlab.system.visible import on_one_line

LOCK = ".lock"
FREE = "free some space and give the same command again to go on"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes, until the block or this process ends.

    folder: made where there is none. One that was made for a block that fails, and holds nothing yet, is removed again.
        What killed writers have left in it goes when the block has ended, also of files that were not written again.

    Raises UserError where another process holds it, and where it cannot be written in.
    """
    made: list[Path] = []
    with _held(folder, made) as file:
        with suppress(OSError):  # a full disk: the block will say it
            file.truncate(0)
            file.write(f"process {os.getpid()}: {' '.join(['tiltlab', *sys.argv[1:]])}")
            file.flush()
        try:
            yield
        except BaseException:
            _remove(folder, made)
            raise
        clear_parts(folder.rglob("*.part"))


def require_writable(path: Path) -> None:
    """Check that a file can be written, before the work and not after it. Writes nothing.

    Raises UserError where it cannot.
    """
    try:
        if path.is_dir():
            raise OSError("it is a folder")
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir():
            raise OSError(f"{parent} is a file")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OSError(f"{parent} is not writable")
        if any(len(os.fsencode(part)) > os.pathconf(parent, "PC_NAME_MAX") for part in path.parts):
            raise OSError("a name in it is too long")
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> UserError:
    """The error to raise where a file or folder could not be written, and what to do about it.

    error: what was raised when it was tried.
    """
    todo = FREE if is_full(error) else "make that possible, or choose another --out"
    return UserError(f"{path} could not be written: {words(error)}; {todo}")


def is_full(error: BaseException | None) -> bool:
    """Whether an error is for want of space, as Python says it or as libraries pass it on."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(full in str(error) for full in ("No space left", "Disk quota exceeded", "File too large"))


def _held(folder: Path, made: list[Path]) -> IO[str]:
    """The lock file of a folder, open and locked. `made` gets the folders that had to be made, the innermost first."""
    try:
        made += [missing for missing in (folder, *folder.parents) if not missing.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8", errors="replace")
        if _try_lock(file) and _is_there(folder / LOCK, file):
            return file
        with file:
            raise UserError(
                f"another tiltlab is running in {folder}{_holder(file)}; wait for it, or choose another --out"
            )
    except (OSError, ValueError) as error:
        raise cannot_write(folder, error) from error


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: Path, file: IO[str]) -> bool:
    """Whether an open file is still the one of that name: who held it may have removed it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _holder(file: IO[str]) -> str:
    """Who says to hold a lock, in brackets; nothing where nobody does."""
    file.seek(0)
    said = on_one_line(file.read(200))
    return f" ({said})" if said else ""


def _remove(folder: Path, made: list[Path]) -> None:
    if made and [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        with suppress(OSError):  # somebody else has put something there
            for path in made:
                path.rmdir()
