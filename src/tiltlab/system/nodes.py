"""What the machines of a cluster must have in common before anything starts on them: versions, and a folder.

Each node leaves a file in a new folder and then looks for those of all others; what they answer is judged in one place.

Left out on purpose: how the nodes are asked (ray_pool.py).
"""

import fcntl
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from tiltlab.errors import UserError, words

PACKAGES = ("tiltlab", "torch", "transformers")

LOCK = "lock"

SEEN_WITHIN = 5.0
"""Seconds that a file may take to be seen on another machine."""

Versions = dict[str, str | None]


@dataclass(frozen=True)
class Arrived:
    """What a node answers first.

    versions: of Python and of what tiltlab computes with; None for what is not installed.
    wrong: why it could not leave its file, None where it could.
    """

    versions: Versions
    wrong: str | None


@dataclass(frozen=True)
class Looked:
    """What a node answers once all have left their files.

    missing: the names of those whose files it does not see.
    locked: whether the lock that is held elsewhere is refused to it, as it should be.
    """

    missing: tuple[str, ...]
    locked: bool


def require_alike(nodes: Sequence[str], everywhere: Callable[..., list[Any]], run: Path) -> None:
    """Check that all nodes, and this machine, compute by the same code and see the run folder.

    nodes: their names.
    everywhere: called as everywhere(function, arguments of each node), returns what each answers.
    run: the run folder, which need not be there yet.

    Raises UserError for the first node that it is not so for.
    """
    here, names = "this machine", [f"node {node}" for node in nodes]
    with meeting_place(run) as folder:
        told = [arrive(folder, here), *everywhere(arrive, [(folder, name) for name in names])]
        arrived: dict[str, Arrived] = dict(zip([here, *names], told, strict=True))
        require_same_versions(versions_here(), {name: answer.versions for name, answer in arrived.items()})
        require_shared(run, arrived, {})
        told = [look(folder, names), *everywhere(look, [(folder, [here, *names])] * len(names))]
        require_shared(run, arrived, dict(zip([here, *names], told, strict=True)))


def versions_here() -> Versions:
    """Versions of Python and of what tiltlab computes with, None for what is not installed. Imports none of it."""
    return {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def require_same_versions(here: Versions, nodes: Mapping[str, Versions]) -> None:
    """Check that all nodes compute by the same code.

    here: the versions of this process.
    nodes: those of each node, by its name.

    Raises UserError for the first that differs.
    """
    for node, theirs in nodes.items():
        for name, wanted in here.items():
            if (found := theirs.get(name)) != wanted:
                raise UserError(
                    f"{node} has {name} {found or 'not installed'}, and {wanted} is here: install the same "
                    "versions on every node, or start Ray there from the same environment"
                )


@contextmanager
def meeting_place(run: Path) -> Iterator[Path]:
    """A new folder where the run folder is, or is to be, with a lock that this process holds; removed in the end.

    Raises UserError where it cannot be made.
    """
    parent = next(folder for folder in (run, *run.parents) if folder.is_dir())
    folder = parent / f".tiltlab-{secrets.token_hex(4)}"
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _held(folder: Path) -> IO[str]:
    try:
        folder.mkdir()
        file = (folder / LOCK).open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written in: {words(error)}; choose another --out") from error
    return file


def arrive(folder: Path, name: str) -> Arrived:
    """Leave a file.

    folder: that all nodes are to see.
    name: of this node.
    """
    try:
        (folder / name).write_text(name)
        wrong = None
    except OSError as error:
        wrong = words(error)
    return Arrived(versions_here(), wrong)


def look(folder: Path, names: Sequence[str], patience: float = SEEN_WITHIN) -> Looked:
    """Look for the files that others left, and try the lock that one of them holds.

    folder: that all nodes are to see.
    names: of all nodes.
    patience: seconds that a file may take to be seen.
    """
    end = time.monotonic() + patience
    missing = [name for name in names if not _sees(folder / name, name)]
    while missing and time.monotonic() < end:
        time.sleep(0.2)
        missing = [name for name in missing if not _sees(folder / name, name)]
    return Looked(tuple(missing), _is_locked(folder / LOCK))


def _sees(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except (OSError, UnicodeDecodeError):
        return False


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def require_shared(run: Path, arrived: Mapping[str, Arrived], looked: Mapping[str, Looked]) -> None:
    """Check that a run folder is on storage that all nodes see, with locks that hold between them.

    arrived, looked: what each node answered, by its name.

    Raises UserError for the first node that it is not so for.
    """
    todo = "give an --out on storage that all nodes share, such as a home or a project folder on NFS or Lustre"
    for node, answer in arrived.items():
        if answer.wrong:
            raise UserError(f"{node} cannot write where {run} is to be ({answer.wrong}): {todo}")
    for node, seen in looked.items():
        if seen.missing:
            raise UserError(f"{node} does not see what {seen.missing[0]} writes where {run} is to be: {todo}")
    for node, seen in looked.items():
        if not seen.locked:
            raise UserError(
                f"a lock on {run} is none for {node}, so that two could write the same files: give an --out on "
                "storage with locks between nodes (NFS mounted without nolock and local_lock, Lustre with flock)"
            )
