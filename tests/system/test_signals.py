"""Commands that are told to end: Ctrl-C, SIGTERM and SIGHUP save, say so, and tell by the exit code which it was."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.commands import Command
from tests.processes import runs, wait_until
from tests.study.test_study import STUDY

pytestmark = pytest.mark.slow

INT, TERM, HUP = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NOISE = ("leaked", "resource_tracker", "semaphore", "Traceback", "Exception ignored")
SAMPLES = ["--task", "lazy-sum", "-n", "16", "--limit", "300", "--max-tokens", "48"]


def ended(command: Command, number: int, word: str) -> None:
    """As it is to end after a signal."""
    code, said = command.ended(100), command.said()
    assert code == 128 + number, said
    assert word in said
    assert not any(noise in said for noise in NOISE), said


def study(folder: Path, jobs: int, *changes: str, **environment: str) -> Command:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(STUDY | {"train": STUDY["train"] | {"steps": 200}}))
    run = ["study", str(recipe), "--out", str(folder / "run"), "--jobs", str(jobs)]
    return Command(*run, *[part for change in changes for part in ("--set", change)], **environment)


@pytest.mark.parametrize(("jobs", "number"), [(1, INT), (1, HUP), (2, TERM)])
def test_a_study_saves_where_it_is(jobs: int, number: int, tmp_path: Path) -> None:
    process = study(tmp_path, jobs)
    wait_until(lambda: bool(list(tmp_path.rglob("metrics.jsonl"))) or process.poll() is not None)
    os.killpg(process.pid, number)  # to the whole group, as a terminal and schedulers do
    ended(process, number, "the same command goes on from there")
    stopped = [path.parent for path in tmp_path.rglob("metrics.jsonl")]
    assert any((folder / "checkpoints").exists() for folder in stopped)
    assert not list(tmp_path.rglob("failed.json"))


@pytest.mark.parametrize(("jobs", "number"), [(1, INT), (2, TERM)])
def test_a_second_signal_ends_a_study_in_the_midst_of_a_long_reward(jobs: int, number: int, tmp_path: Path) -> None:
    own = ("train.reward=tests.rewards_for_tests:slow_but_on_gold", "train.reward_deadline=3000")
    process = study(tmp_path, jobs, *own, SLOW_REWARD=str(tmp_path / "at work"))
    wait_until(lambda: (tmp_path / "at work").exists() or process.poll() is not None)
    children = children_of(process.pid)
    os.killpg(process.pid, number)
    time.sleep(1)
    assert process.poll() is None  # it waits for the reward
    os.killpg(process.pid, number)
    ended(process, number, "interrupted; the same command goes on from the last checkpoint")
    assert children
    wait_until(lambda: not any(map(runs, children)))


def children_of(pid: int) -> list[int]:
    """And theirs."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    mine = [child for child, parent in pairs if parent == pid]
    return mine + [other for child in mine for other in children_of(child)]


@pytest.mark.parametrize(("command", "number"), [("evaluate", INT), ("evaluate", HUP), ("forecast", TERM)])
def test_an_evaluation_says_that_it_goes_on(command: str, number: int, tmp_path: Path) -> None:
    model = {"evaluate": "--model", "forecast": "--base"}[command]
    process = Command(command, model, "embedded", *SAMPLES, "--out", str(tmp_path))
    wait_until(lambda: (tmp_path / "lots.jsonl").exists() or process.poll() is not None)
    os.killpg(process.pid, number)
    ended(process, number, "interrupted; the same command goes on from the last checkpoint")


def test_a_verdict_says_so_too(tmp_path: Path) -> None:
    graded, out = tmp_path / "graded", tmp_path / "out"
    process = Command(
        "verdict",
        "--base",
        "embedded",
        "--tuned",
        "embedded",
        *SAMPLES,
        "--out",
        str(out),
        first=f"""
from pathlib import Path
from tiltlab.tasks.sums import Sums

grade = Sums.grade

def noted(*arguments):
    Path({str(graded)!r}).touch()
    return grade(*arguments)

Sums.grade = noted
""",
    )
    wait_until(lambda: graded.exists() or process.poll() is not None)
    os.killpg(process.pid, TERM)
    ended(process, TERM, "interrupted; the same command goes on from the last checkpoint")
    assert not out.exists()
