"""vLLM from the command line: a study whose engine is killed loses no step, and each command that draws takes one."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command
from tests.contract.shapes import module, needs_vllm, shared_folders
from tests.processes import wait_until
from tiltlab.models.loading import ModelConfig, load_codec

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    module("qwen3", tied=True).save_pretrained(path)
    load_codec(ModelConfig()).tokenizer.save_pretrained(path)
    return str(path)


def recipe(model: str, path: Path) -> str:
    settings: dict[str, Any] = {
        "name": "small",
        "model": {"path": model},
        "engine": "vllm",
        "tasks": ["lazy-sum"],
        "arms": [{"arm": "tempered", "alpha": 2}],
        "train": {"steps": 8, "prompts": 4, "responses": 4, "max_tokens": 32, "optimizer": {"lr": 1e-3}},
        "validation": {"every": 2, "problems": 4, "n": 1},
        "test": {"problems": 4, "n": 2},
    }
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in out.rglob("metrics.jsonl") for line in path.read_text().splitlines()]


def engine_of(owner: int) -> int:
    """Of a process's children the one that prints where its engine does."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(owner)], capture_output=True, text=True, check=True)
    printing = {int(pid): str(Path(f"/proc/{pid}/fd/1").readlink()) for pid in children.stdout.split()}
    (engine,) = [pid for pid, file in printing.items() if file.endswith("vllm.log")]
    return engine


def test_a_study_whose_engine_is_killed_goes_on_and_loses_no_step(model: str, tmp_path: Path) -> None:
    before, out = shared_folders(), tmp_path / "out"
    arguments = ["study", recipe(model, tmp_path / "small.yaml"), "--jobs", "1", "--out", str(out)]
    killed = Command(*arguments)
    wait_until(lambda: len(lines(out)) >= 3 or killed.poll() is not None, 300)
    os.kill(engine_of(killed.pid), signal.SIGKILL)
    assert killed.ended(300) == 2, killed.said()
    assert "vLLM was killed (signal 9) while it" in " ".join(killed.said().split())
    assert shared_folders() == before
    again = Command(*arguments)
    assert again.ended(600) == 0, again.said()
    assert [line["step"] for line in lines(out)] == list(range(8))
    assert all(line["mismatch_mean"] < 1e-5 for line in lines(out))
    assert shared_folders() == before


COMMANDS = {
    "evaluate": ["evaluate", "--model", "MODEL", "--task", "lazy-sum", "-n", "2", "--limit", "3", "--out", "OUT"],
    "forecast": ["forecast", "--base", "MODEL", "--task", "lazy-sum", "-n", "4", "--limit", "3", "--out", "OUT"],
    "verdict": ["verdict", "--base", "MODEL", "--tuned", "MODEL", "--task", "lazy-sum", "-n", "4", "--limit", "3"],
    "check": ["check", "lazy-sum", "--model", "MODEL", "--limit", "3", "--out", "OUT.html"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_draws_by_it(command: str, model: str, tmp_path: Path) -> None:
    before, out = shared_folders(), str(tmp_path / "out")
    arguments = [part.replace("MODEL", model).replace("OUT", out) for part in COMMANDS[command]]
    arguments += ["--max-tokens", "200", "--engine", "vllm"] + (["--out", out] if command == "verdict" else [])
    ended = Command(*arguments)
    code = ended.ended(600)
    assert code == 0 or (command == "check" and code == 1), ended.said()  # it finds a random model wanting
    assert "Traceback" not in ended.said()
    assert shared_folders() == before
