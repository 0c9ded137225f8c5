"""Bad input: one clear line, exit code 2, nothing written."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import tiny
from tests.test_recipe import SMALL, recipe
from tiltlab import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tiltlab", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def model_folder(path: Path, **options: Any) -> str:
    tiny.llama(**options).save_pretrained(path)
    tokenizer = tiny.tokenizer()
    if "eos_token_id" in options:
        tokenizer.eos_token = None
    tokenizer.save_pretrained(path)
    return str(path)


def data(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


ROWS = [{"problem": f"What is {i}?", "answer": str(i)} for i in range(8)]


def changes(case: str, tmp_path: Path) -> dict[str, Any]:
    def task(**more: Any) -> dict[str, Any]:
        train, test = (
            data(tmp_path / "train.jsonl", *ROWS),
            data(tmp_path / "test.jsonl", {"problem": "x", "answer": "1"}),
        )
        return {"tasks": [{"task": "data", "train": train, "test": test, "select": 2} | more]}

    match case:
        case "missing folder":
            return {"model": {"path": str(tmp_path / "nowhere" / "model")}}
        case "hub out of reach":
            return {"model": {"path": "no-such-org/no-such-model"}}
        case "missing gguf":
            return {"model": {"path": str(tmp_path / "model.gguf")}}
        case "not a model":
            (tmp_path / "empty").mkdir()
            return {"model": {"path": str(tmp_path / "empty")}}
        case "no eos":
            return {"model": {"path": model_folder(tmp_path / "m", eos_token_id=None)}}
        case "no chat template":
            return task()
        case "prompt too long":
            return task(prompt="plain", template="{question}" * 100)
        case "empty data":
            return task(train=data(tmp_path / "none.jsonl"))
        case "no answer":
            return task(train=data(tmp_path / "bad.jsonl", ROWS[0], {"problem": "q"}))
        case "reward missing":
            return {"train": SMALL["train"] | {"reward": "tests.rewards_for_tests:nothing"}}
        case "reward nan":
            return {"train": SMALL["train"] | {"reward": "tests.rewards_for_tests:always_nan"}}
        case "reward count":
            return {"train": SMALL["train"] | {"reward": "tests.rewards_for_tests:too_few"}}
        case "no gpu":
            return {"model": {"path": "embedded", "device": "cuda"}}
    raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing folder", "model folder .*nowhere.model does not exist"),
        ("hub out of reach", "no-such-org/no-such-model cannot be loaded .HF_HUB_OFFLINE is set."),
        ("missing gguf", "model file .*model.gguf does not exist"),
        ("not a model", "model .*empty cannot be loaded"),
        ("no eos", "names no EOS token"),
        ("no chat template", "no chat template, .*prompt: plain"),
        ("prompt too long", "do not fit the context of embedded .256 tokens.*begins 'What is"),
        ("empty data", "none.jsonl is empty"),
        ("no answer", "bad.jsonl line 2 has no answer"),
        ("reward missing", "nothing.* cannot be loaded"),
        ("reward nan", "reward always_nan returned nan"),
        ("reward count", "reward too_few returned 1 values for 4 responses"),
        ("no gpu", "no GPU that torch can use"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if case == "no gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    out = tmp_path / "run"
    path = recipe(tmp_path, **changes(case, tmp_path))
    capsys.readouterr()
    assert run(monkeypatch, "study", path, "--out", str(out), "--jobs", "1") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    assert re.search(message, said[0]), said[0]
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["study", "--set", "nokey"],
        ["study", "nowhere.yaml"],
        ["study", "--seeds", "0"],
        ["study", "--set", "arms=[{arm: tilted, beta: -1}]"],
        ["report", "nowhere"],
        ["nonsense"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_is_not_used_for_another_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    path = recipe(tmp_path, arms=["base"])
    assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1") == 0
    assert "report:" in capsys.readouterr().out
    assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1", "--set", "train.max_tokens=9") == 2
    assert "train.max_tokens differs" in capsys.readouterr().err
    assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1", "--seeds", "2") == 0  # more seeds extend it


def test_a_reward_that_fails_in_mid_run_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = SMALL["train"] | {"reward": "tests.rewards_for_tests:late_nan"}
    out = tmp_path / "run"
    assert run(monkeypatch, "study", recipe(tmp_path, train=train), "--out", str(out), "--jobs", "1") == 2
    assert "reward late_nan returned nan for problem" in capsys.readouterr().err
    assert (out / "study.json").exists()
    assert not list(out.rglob("result.json"))
