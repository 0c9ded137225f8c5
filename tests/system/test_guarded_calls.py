"""Workers: what their calls cannot break, whom they serve, and when they end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.processes import python, runs, wait_until
from tests.rewards_for_tests import (
    backtracks_with_its_id_in,
    dies,
    grades,
    leaves_a_child,
    returns_a_function,
    sleeps_for_ever,
    sleeps_with_its_id_in,
    uses_workers,
)
from tiltlab.errors import UserError
from tiltlab.system.guarded_calls import Failed, call_all, call_once

WARM = ("tests.rewards_for_tests",)
CALLS = [(1,), (2,), (3,), (4,)]

GRADES = r"""
print("TOP")
from tiltlab.grading.maths import grade_many

def reasons(_=None):
    return [grade.reason for grade in grade_many([("\\boxed{(x+1)^2}", "x^2+2x+1")], deadline=100.0)]
"""

CALLERS = {
    "itself": "print(reasons())",
    "a pool of forks": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map(reasons, [1]))
""",
    "forks of one that has workers": """
import multiprocessing
assert reasons() == ["correct"]
with multiprocessing.get_context("fork").Pool(3) as pool:
    found = pool.map(reasons, range(30), chunksize=1)
assert found == [["correct"]] * 30
print(reasons())
""",
    "a loader's worker": """
import torch

class Graded(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return reasons()[0]

found = list(torch.utils.data.DataLoader(Graded(), num_workers=1, multiprocessing_context="fork"))
assert found == [["correct"], ["correct"]]
print(found[0])
""",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("caller", "source"),
    [
        *[("itself", source) for source in ("file", "stdin", "command line")],
        ("a pool of forks", "stdin"),
        ("forks of one that has workers", "command line"),
        ("a loader's worker", "file"),
    ],
)
def test_a_script_without_a_main_guard_is_served_and_runs_once(caller: str, source: str, tmp_path: Path) -> None:
    code = GRADES + CALLERS[caller]
    (tmp_path / "script.py").write_text(code)
    program = {"file": ["script.py"], "stdin": ["-"], "command line": ["-c", code]}[source]
    done = subprocess.run(
        [sys.executable, *program],
        input=code if source == "stdin" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["TOP", "['correct']"]), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_a_daemonic_process_is_served(start: str, tmp_path: Path) -> None:
    file = str(tmp_path / "reason")
    process = multiprocessing.get_context(start).Process(target=grades, args=(file,), daemon=True)
    process.start()
    process.join(100)
    assert process.exitcode == 0
    assert Path(file).read_text() == "correct"


def test_a_call_that_hangs_or_dies_costs_itself_only() -> None:
    assert call_all(abs, CALLS, 5.0, WARM) == [1, 2, 3, 4]
    hung = call_all(sleeps_for_ever, [()], 0.5, WARM)
    assert [failed.reason for failed in hung] == ["timeout"]
    died, fine = call_all(dies, [(True,), (False,)], 5.0, WARM)
    assert died == Failed("error", "killed its process (exit code -9)")
    assert fine == "alive"


def test_a_process_that_a_call_leaves_behind_holds_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    start = time.monotonic()
    died = call_once(leaves_a_child, (str(file),), 200.0)
    assert died == Failed("error", "killed its process (exit code -9)")
    assert time.monotonic() - start < 100
    wait_until(file.exists)
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_workers_killed_while_they_are_idle_are_not_missed() -> None:
    for _ in range(5):
        pids = set(call_all(os.getpid, [()] * 20, 5.0, WARM))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert call_all(abs, CALLS, 5.0, WARM) == [1, 2, 3, 4]  # at once: some are not dead yet
        assert not pids & set(call_all(os.getpid, [()] * 20, 5.0, WARM))


def test_what_cannot_be_sent_fails_alone() -> None:
    found = call_all(abs, [(1,), (lambda: 1,), (2,)], 5.0, WARM)
    assert (found[0], found[2]) == (1, 2)
    assert found[1].reason == "error"
    assert call_all(returns_a_function, [()], 5.0, WARM)[0].reason == "error"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise OSError('no library')", "importing broken_module raised OSError: no library"),
        ("import os; os._exit(7)", "it ended with exit code 7 before it was ready"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with exit code -9 before it was ready"),
    ],
)
def test_imports_that_fail_in_every_worker_are_an_error(
    module: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the fault of the calls."""
    (tmp_path / "broken_module.py").write_text(module)
    with pytest.raises(UserError, match=f"no worker process can be started: {said}"):
        call_all(abs, CALLS, 5.0, ("broken_module",), path=(str(tmp_path),))
    (tmp_path / "broken_module.py").write_text("")  # mended, they serve again
    assert call_all(abs, CALLS, 5.0, ("broken_module",), path=(str(tmp_path),)) == [1, 2, 3, 4]


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/sh"])
def test_where_no_python_runs_grading_is_an_error(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(UserError, match=f"no worker process can be started.*{executable}"):
        call_all(abs, CALLS, 5.0, ("cmath",))
    with pytest.raises(UserError, match=f"no worker process can be started.*{executable}"):
        call_once(abs, (1,), 5.0)


def test_one_start_that_fails_is_made_good(tmp_path: Path) -> None:
    file = tmp_path / "tried"
    (tmp_path / "bad_luck.py").write_text(
        f"import os, pathlib; first = not os.path.exists({str(file)!r}); pathlib.Path({str(file)!r}).touch()\n"
        "if first: os._exit(1)"
    )
    assert call_all(abs, [(-1,)], 5.0, ("bad_luck",), path=(str(tmp_path),)) == [1]


def test_ctrl_c_ends_a_call_at_once_and_leaves_workers_that_serve(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def interrupt() -> None:
        wait_until(file.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call_all(sleeps_with_its_id_in, [(str(file),)], 1000.0, WARM)
    thread.join()
    assert not runs(int(file.read_text()))
    assert call_all(abs, CALLS, 5.0, WARM) == [1, 2, 3, 4]


def test_signals_that_ask_to_end_are_for_the_parent_to_answer() -> None:
    pids = set(call_all(os.getpid, [()] * 20, 5.0, WARM))
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert set(call_all(os.getpid, [()] * 20, 5.0, WARM)) <= pids


def test_a_process_with_workers_ends(tmp_path: Path) -> None:
    """And so do its workers, one of them in the middle of a call; also where it is a child of another."""
    process = multiprocessing.get_context("spawn").Process(target=uses_workers, args=(str(tmp_path / "pids"),))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids
    wait_until(lambda: not any(map(runs, pids)))


@pytest.mark.parametrize("function", [sleeps_with_its_id_in, backtracks_with_its_id_in])
def test_killed_a_process_leaves_no_worker(function: object, tmp_path: Path) -> None:
    """At work or idle, with a forked child that lives on."""
    idle, busy, forked = (tmp_path / name for name in ("idle", "busy", "forked"))
    code = f"""
import os, time
from tests.processes import write
from tests.rewards_for_tests import {function.__name__} as function
from tiltlab.system.guarded_calls import call_all

write({str(idle)!r}, " ".join(map(str, call_all(os.getpid, [()] * 20, 5.0, ("math",)))))
child = os.fork()
if child == 0:
    time.sleep(3600)
write({str(forked)!r}, str(child))
call_all(function, [({str(busy)!r},)], 2.0, ("math",))
"""
    process = subprocess.Popen(python(code))
    wait_until(busy.exists)
    process.kill()
    process.wait()
    pids = {int(pid) for pid in f"{idle.read_text()} {busy.read_text()}".split()}
    wait_until(lambda: not any(map(runs, pids)))
    os.kill(int(forked.read_text()), signal.SIGKILL)
