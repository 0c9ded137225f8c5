"""`tiltlab study` on two ranks, as people start it: a rank killed, Ctrl-C, and torchrun; the same command goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import Command
from tests.processes import ROOT, runs, wait_until
from tests.study.ranked import RECIPE, TRAINED
from tiltlab.storage.files import read_json, read_lines

pytestmark = pytest.mark.slow

STEPS = 40


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    asked = RECIPE.model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            asked
            | {"arms": [arm for arm in asked["arms"] if arm["arm"] == "tempered"], "tasks": ["lazy-sum"], "gpus": 2}
            | {"train": asked["train"] | {"steps": STEPS}, "model": {"device": "cpu"}, "test": {"problems": 2, "n": 2}}
        )
    )
    return tmp_path / "recipe.yaml"


def steps_of(run: Path) -> int:
    return len(read_lines(TRAINED.folder(run).metrics))


def ranks_of(process: int) -> list[int]:
    """Processes of the ranks that a command has started."""
    told = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in told.splitlines()]
    return sorted(int(pid) for pid, parent, *args in lines if int(parent) == process and "system.program" in args[0])


def finish_on_one(recipe: Path, run: Path) -> None:
    """By the same command, but for the number of ranks."""
    command = Command("study", str(recipe), "--out", str(run), "--gpus-per-run", "1", "--jobs", "1")
    assert command.ended(300) == 0, command.said()
    assert [line["step"] for line in read_lines(TRAINED.folder(run).metrics)] == list(range(STEPS))


def test_a_killed_rank_and_ctrl_c_lose_nothing(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = Command("study", str(recipe), "--out", str(run))
    wait_until(lambda: steps_of(run) > 2 or command.poll() is not None)
    ranks = ranks_of(command.pid)
    assert len(ranks) == 2, command.said()
    os.kill(ranks[1], signal.SIGKILL)
    assert command.ended(30) == 2
    said = [line for line in command.said().splitlines() if "of 2" in line]
    assert len(said) == 1
    assert "of 2 was killed" in said[0]
    assert "give the same command again to go on" in said[0]
    assert not any(map(runs, ranks))

    command, before = Command("study", str(recipe), "--out", str(run)), steps_of(run)
    wait_until(lambda: steps_of(run) > before + 2 or command.poll() is not None)
    os.killpg(command.pid, signal.SIGINT)
    assert command.ended(100) == 130, command.said()
    saved = TRAINED.folder(run).checkpoints.steps()[-1]
    assert saved == steps_of(run) < STEPS

    finish_on_one(recipe, run)
    ranks_by_step = [line["ranks"] for line in read_lines(TRAINED.folder(run).metrics)]
    assert ranks_by_step == [2] * saved + [1] * (STEPS - saved)
    assert {made["ranks"] for made in read_json(run / "study.json")["made"]} == {1, 2}


def test_torchrun_starts_it_too_and_a_signal_saves(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tiltlab"]
    command = [*torchrun, "study", str(recipe), "--out", str(run)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: steps_of(run) > 2 or first.poll() is not None)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=100)[1]
    assert "the same command goes on from there" in said
    saved = TRAINED.folder(run).checkpoints.steps()[-1]
    assert saved == steps_of(run) < STEPS, said

    finish_on_one(recipe, run)
