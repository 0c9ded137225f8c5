"""A folder in shared memory goes with its owner, and the next owner removes what a killed one left."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT, python
from tiltlab.system import shared_folder
from tiltlab.system.shared_folder import SharedFolder

HOLDS = """
from pathlib import Path
from tiltlab.system import shared_folder
shared_folder._parent = lambda: Path({parent!r})
folder = shared_folder.SharedFolder()
(folder.path / "weights").write_text("many")
print(folder.path, flush=True)
{then}
"""


@pytest.fixture(autouse=True)
def own_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shared_folder, "_parent", lambda: tmp_path)
    return tmp_path


def begun(then: str, parent: Path) -> tuple[subprocess.Popen, Path]:
    code = HOLDS.format(parent=str(parent), then=then)
    program = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert program.stdout
    return program, Path(program.stdout.readline().strip())


def test_it_is_one_s_own_until_it_is_closed() -> None:
    one, other = SharedFolder(), SharedFolder()
    assert one.path != other.path
    assert one.path.stat().st_mode & 0o777 == 0o700
    (one.path / "weights").write_text("many")
    one.close()
    assert not one.path.exists()
    assert other.path.is_dir()
    other.close()
    other.close()  # twice is once


@pytest.mark.parametrize(
    "then", ["", "raise SystemExit(1)", "raise RuntimeError", "import os; os.kill(os.getpid(), 2)"]
)
def test_it_goes_with_its_program(then: str, own_parent: Path) -> None:
    program, path = begun(then, own_parent)
    program.wait(60)
    assert path.name
    assert not path.exists()


def test_a_killed_one_s_is_removed_by_the_next_and_a_living_one_s_is_not(own_parent: Path) -> None:
    killed, stale = begun("input()", own_parent)
    killed.kill()
    killed.wait()
    living, kept = begun("import time; time.sleep(600)", own_parent)
    try:
        assert not stale.exists()
        assert (kept / "weights").read_text() == "many"
        mine = SharedFolder()
        assert kept.is_dir()
        mine.close()
    finally:
        living.kill()
        living.wait()


def test_what_others_put_there_stays(own_parent: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in ("tiltlab-", "tiltlab-notes-1", "other", f"{shared_folder.PREFIX}{10**30}-x"):
        (own_parent / name).mkdir()
    (own_parent / f"tiltlab-{ended.pid}-file").write_text("no folder")
    target = own_parent / "other"
    (own_parent / f"tiltlab-{ended.pid}-link").symlink_to(target)
    before = sorted(own_parent.iterdir())
    SharedFolder().close()
    assert sorted(own_parent.iterdir()) == before
    assert target.is_dir()


def test_one_that_another_process_holds_by_its_lock_stays(own_parent: Path) -> None:
    """As in another container, whose processes have numbers of their own."""
    import fcntl

    ended = subprocess.Popen(["true"])
    ended.wait()
    path = own_parent / f"tiltlab-{ended.pid}-held"
    path.mkdir()
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    SharedFolder().close()
    assert path.is_dir()
    os.close(held)
    SharedFolder().close()
    assert not path.exists()
