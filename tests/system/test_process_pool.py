"""Pieces of work side by side: whatever happens to one, the others save and are kept."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import python, runs, wait_until
from tests.system.pieces import (
    Unsendable,
    begins,
    does_not_stop,
    ends_its_process,
    fails,
    killed_while_it_writes,
    leaves_a_file,
    run,
    saves_when_asked,
)
from tiltlab.errors import Interrupted, Stopped, UserError
from tiltlab.system.signals import interrupted_by_signals, stopped_by_signals

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_all_pieces_are_done_and_told_of(jobs: int, tmp_path: Path) -> None:
    told = run(*[partial(leaves_a_file, tmp_path)] * 5, jobs=jobs)
    device_of = {news[0]: news[4][3:] for news in told if news[1] == "writing"}
    assert set(device_of.values()) <= ({"one"} if jobs == 1 else {"one", "two"})
    for number in range(5):
        mine = [news for news in told if news[0] == number]
        assert mine == [(number, "writing", 1, 2, f"on {device_of[number]}"), (number, "done", 0, 0)]
    workers = {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 5
    assert len(workers) <= min(jobs, 5)
    assert all(len({p.read_text() for p in tmp_path.glob(f"{worker}-*")}) == 1 for worker in workers)


@pytest.mark.parametrize(
    ("guilty", "said"),
    [
        (killed_while_it_writes, "a worker process was killed .for want of memory"),
        (ends_its_process, "a worker process ended by itself .exit code 5"),
    ],
)
def test_a_worker_that_dies_lets_the_others_save(guilty: Callable[..., None], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{said}.*give the same command again"):
        run(partial(guilty, tmp_path), partial(saves_when_asked, tmp_path), partial(leaves_a_file, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"begun", "saved"}  # the third was not begun


@pytest.mark.parametrize(("error", "raised"), [(OSError, OSError), (Unsendable, RuntimeError)])
def test_an_error_is_raised_once_the_others_have_saved(
    error: type[Exception], raised: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(raised) as caught:
        run(partial(saves_when_asked, tmp_path), partial(fails, tmp_path, error))
    assert (tmp_path / "saved").exists()
    everything = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
    assert "in fails" in everything  # where it was raised
    assert "2" in str(caught.value)


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_process_begins_once_on_its_device(jobs: int, tmp_path: Path) -> None:
    (first := tmp_path / "first").mkdir()
    (done := tmp_path / "done").mkdir()
    run(*[partial(leaves_a_file, done)] * 5, jobs=jobs, begin=partial(begins, first))
    devices = {path.name.split("-")[0]: path.read_text() for path in done.iterdir()}
    assert {path.name.split("-")[0]: path.read_text() for path in first.iterdir()}.items() >= devices.items()
    assert len(list(first.iterdir())) == jobs


def test_what_cannot_be_sent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be handed to worker processes .*must be importable"):
        run(lambda **_: None, partial(leaves_a_file, tmp_path))
    assert not list(tmp_path.iterdir())


def test_where_no_python_runs_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(UserError, match="no worker process can be started"):
        run(*[partial(leaves_a_file, tmp_path)] * 2)


SCRIPT = """
print("TOP")
from functools import partial
from pathlib import Path
from tests.system import pieces
from tiltlab.errors import UserError

folder = Path(sys.argv[1])
print([news[1] for news in pieces.run(*[partial(pieces.leaves_a_file, folder)] * 3)].count("done"))

def of_the_script(**_):
    pass

try:
    pieces.run(of_the_script, of_the_script)
except UserError as error:
    print(error)
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    done = subprocess.run(python(SCRIPT, str(tmp_path)), capture_output=True, text=True, timeout=250, check=False)
    first, second, third = done.stdout.splitlines()
    assert (done.returncode, first, second) == (0, "TOP", "3"), done.stderr
    assert "of_the_script" in third
    assert "must be importable" in third


def test_killed_it_leaves_no_worker(tmp_path: Path) -> None:
    code = """
from functools import partial
from pathlib import Path
from tests.system import pieces

a, b = (Path(name) for name in sys.argv[1:])
pieces.run(partial(pieces.does_not_stop, a), partial(pieces.does_not_stop, b))
"""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    process = subprocess.Popen(python(code, *map(str, folders)))
    wait_until(lambda: all((folder / "begun").exists() for folder in folders))
    process.kill()
    process.wait()
    wait_until(lambda: not any(runs(int((folder / "begun").read_text())) for folder in folders))


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request: pytest.FixtureRequest) -> Any:
    return request.param


def send(number: int, times: int, begun: Path) -> threading.Thread:
    """Once a piece has begun, this process gets the signal so many times."""

    def work() -> None:
        wait_until(begun.exists)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.5)  # two at once would count as one

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_asks_to_save(jobs: int, number: int, tmp_path: Path) -> None:
    thread = send(number, 1, tmp_path / "begun")
    with pytest.raises(Stopped) as stopped:
        run(*[partial(saves_when_asked, tmp_path)] * 3, jobs=jobs)
    thread.join()
    assert (tmp_path / "saved").exists()
    assert stopped.value.signal == number


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_second_signal_ends_it(jobs: int, number: int, tmp_path: Path) -> None:
    thread = send(number, 2, tmp_path / "begun")
    with pytest.raises(Interrupted) as interrupted, interrupted_by_signals():
        run(*[partial(does_not_stop, tmp_path)] * 2, jobs=jobs)
    thread.join()
    assert interrupted.value.signal == number
    worker = int((tmp_path / "begun").read_text())
    assert worker == os.getpid() or not runs(worker)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for heeded in (interrupted_by_signals, stopped_by_signals):
            with heeded():
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_knows_its_signal() -> None:
    assert pickle.loads(pickle.dumps(Interrupted(15))).signal == 15
