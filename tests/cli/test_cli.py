"""Bad input: one clear line, exit code 2, nothing written."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.config.test_recipe import SMALL, recipe
from tests.models import tiny
from tiltlab.cli import main as cli
from tiltlab.system.devices import apart, places_for, usable_devices


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
        return {"tasks": [{"task": "data", "train": train, "test": test, "validation": 2} | more]}

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


def test_rows_that_are_left_out_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = data(tmp_path / "twin.jsonl", {"problem": "what is 3", "answer": "3"})
    path = recipe(
        tmp_path, **changes("no chat template", tmp_path), model={"path": str(tmp_path / "nowhere" / "model")}
    )
    assert run(monkeypatch, "study", path, "--set", f"tasks.0.test={twin}", "--out", str(tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "data: 1 row of train stands in test too, and was left out: " in said
    assert "train.jsonl line 4" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["study", "--set", "nokey"],
        ["study", "nowhere.yaml"],
        ["study", "--seeds", "0"],
        ["study", "--set", "arms=[{arm: tilted, beta: -1}]"],
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
    less = ["model.batch_tokens=4096", "model.checkpointing=true", "train.micro_batch_tokens=64"]
    held = [part for key in (*less, "train.optimizer.state=host") for part in ("--set", key)]
    assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1", *held) == 0
    monkeypatch.setattr("tiltlab.training.optimizer.require_torchao", lambda: None)
    assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1", "--set", "train.optimizer.state=8bit") == 2
    assert "train.optimizer.state differs" in capsys.readouterr().err


def test_a_reward_that_fails_in_mid_run_loses_only_the_responses_it_fails_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = SMALL["train"] | {"reward": "tests.rewards_for_tests:late_nan", "responses": 16, "max_tokens": 24}
    out = tmp_path / "run"
    arguments = (recipe(tmp_path, train=train, arms=["task_reward"]), "--out", str(out), "--jobs", "1")
    assert run(monkeypatch, "study", *arguments) == 0
    (metrics,) = out.rglob("metrics.jsonl")
    ungraded = [json.loads(line)["ungraded"] for line in metrics.read_text().splitlines()]
    assert len(ungraded) == 2
    assert 0 < sum(ungraded) / 2 < 1  # 58 % answer with digits alone, which it can grade
    (records,) = out.rglob("records-last.jsonl")
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert {line["reason"] for line in lines if not line["text"].isdigit()} <= {"error"}
    assert all(line["reward"] is None for line in lines if line["reason"] == "error")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device gpu, and torch knows none of that name; it is auto, cpu, cuda or cuda:N"),
        ("cuda:9", "device cuda:9, and the last GPU is cuda:1"),
        ("cuda:-1", "device cuda:-1, and torch knows none of that name"),
        ("meta", "device meta, and torch cannot compute on it here"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    out = tmp_path / "run"
    assert run(monkeypatch, "study", "--out", str(out), "--set", f"model.device={device}") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert not out.exists()


def test_devices_that_are_there_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    wanted = ("auto", "cuda", "cuda:1", "cpu")
    assert [usable_devices(device) for device in wanted] == [
        ["cuda:0", "cuda:1"],
        ["cuda:0", "cuda:1"],
        ["cuda:1"],
        ["cpu"],
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_devices("auto") == ["cpu"]


def test_more_gpus_a_job_than_there_are_are_refused_with_what_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert run(monkeypatch, "study", "--out", str(tmp_path / "run"), "--gpus-per-run", "4") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "gpus: 4, and this machine has 2" in said
    assert "tiltlab export verl RECIPE --arm ARM --out DIR" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ranks", "devices", "places"),
    [
        (1, ["cuda:0", "cuda:1"], [["cuda:0"], ["cuda:1"]]),
        (2, ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4"], [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (3, ["cpu"], [["cpu", "cpu", "cpu"]]),
    ],
)
def test_devices_are_dealt_out_by_as_many_as_a_job_has(ranks: int, devices: list[str], places: list[list[str]]) -> None:
    assert [apart(place) for place in places_for(ranks, devices)] == places


@pytest.mark.parametrize("more", [["--jobs", "2"], ["--gpus-per-run", "3"], ["--dry-run"]])
def test_what_does_not_go_with_torchrun_is_refused(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(monkeypatch, "study", *more) == 2
    assert "torchrun has started 2 ranks for one job at a time: leave out" in capsys.readouterr().err
    assert run(monkeypatch, "list", "arms") == 2
    assert "list has one rank: start it without torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "nowhere does not exist"),
        ("a-file", "x", "a-file is a file, not a run folder"),
        ("folder/notes.txt", "x", "there is no study.json in it"),
        ("folder/study.json", "{", "study.json is not JSON: Expecting"),
        ("folder/study.json", "[]", "its study.json is not one of tiltlab's"),
        ("folder/study.json", '{"recipe": {}}', "its study.json is not one of tiltlab's"),
    ],
)
def test_what_is_no_run_folder_is_refused(
    name: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "report", name.split("/")[0]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_look_like_markup_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "[red]run :x:"
    path = recipe(tmp_path, arms=[{"arm": "base", "label": "[/] [bold]x :x:"}])
    assert run(monkeypatch, "study", path, "--out", str(out), "--jobs", "1") == 0
    said = capsys.readouterr()
    assert "lazy-sum / [/] [bold]x :x: / seed 0: done" in said.err
    assert f"report: {out / 'report.html'}\n" in said.out
    assert "[/] [bold]x :x: " in said.out


def test_a_failed_arm_is_told_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    path = recipe(tmp_path, arms=["base", {"arm": "objective", "sharpen": 1e39, "label": "far"}])
    assert run(monkeypatch, "study", path, "--out", str(out), "--jobs", "1") == 1
    said = capsys.readouterr()
    assert "lazy-sum / far / seed 0: failed" in said.err
    assert "lazy-sum / base / seed 0: done" in said.err
    assert "Failed: lazy-sum / far / seed 0: " in said.out
    assert "<strong>Failed:</strong> lazy-sum / far / seed 0: " in (out / "report.html").read_text()


def test_all_that_is_wrong_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for loader in ("load_base", "load_reference"):
        monkeypatch.setattr(f"tiltlab.study.study.{loader}", lambda *_: pytest.fail("weights were loaded"))
    first = changes("empty data", tmp_path)["tasks"]
    second = [task | {"name": "other"} for task in changes("no answer", tmp_path)["tasks"]]
    model = {"path": str(tmp_path / "nowhere" / "model"), "device": "gpu"}
    train = SMALL["train"] | {"reward": "tests.rewards_for_tests:nothing"}
    path = recipe(tmp_path, tasks=first + second, model=model, train=train)
    capsys.readouterr()
    assert run(monkeypatch, "study", path, "--out", str(tmp_path / "run")) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("error: ") for line in said)
    wanted = ["device gpu", "nowhere.model does not exist", "nothing.* cannot", "none.jsonl is empty", "has no answer"]
    assert len(said) == len(wanted)
    for line, message in zip(said, wanted, strict=True):
        assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


def test_a_sampler_by_name_takes_the_place_of_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sample.yaml"
    path.write_text("{task: lazy-sum, sampler: {arm: temperature, temperature: 0.5}, n: 2, problems: 2}")
    out = tmp_path / "out"
    assert run(monkeypatch, "evaluate", str(path), "--sampler", "greedy", "--out", str(out)) == 0
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines[::2]] == [line["text"] for line in lines[1::2]]
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", str(path), "--sampler", "tilted", "--out", str(tmp_path / "no")) == 2
    assert "tilted trains a model" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_few_rows_of_ones_own_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = data(tmp_path / "train.jsonl", *({"problem": f"{i}+9=", "answer": str(i + 9)} for i in range(24)))
    test = data(tmp_path / "test.jsonl", {"problem": "99+9=", "answer": "108"})
    task = {"task": "data", "train": train, "test": test, "prompt": "plain", "template": "lazy {question}"}
    out = tmp_path / "run"
    path = recipe(tmp_path, tasks=[task], arms=["task_reward"])
    assert run(monkeypatch, "study", path, "--out", str(out), "--jobs", "1") == 0
    study = json.loads((out / "study.json").read_text())
    assert {split: fact["problems"] for split, fact in study["data"]["data"].items()} == {
        "train": 18,
        "validation": 6,
        "test": 1,
    }
    assert study["recipe"]["tasks"][0]["validation"] == 64  # as folders of before have it, which are gone on with


def test_too_many_rows_for_validation_name_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = changes("no chat template", tmp_path)["tasks"]
    path = recipe(tmp_path, tasks=["lazy-sum", tasks[0] | {"validation": 8, "prompt": "plain"}])
    assert run(monkeypatch, "study", path, "--out", str(tmp_path / "run")) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "tasks.1.validation" in said


def test_all_that_is_wrong_with_an_evaluation_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tiltlab.evaluation.run.load_reference", lambda *_: pytest.fail("weights were loaded"))
    options = ["--task", "data", "--data", data(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]
    options += ["--model", str(tmp_path / "a" / "b"), "--reference", str(tmp_path / "c" / "d")]
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", *options, "--set", "reward=tests.rewards_for_tests:nothing") == 2
    said = capsys.readouterr().err.strip().splitlines()
    wanted = ["none.jsonl is empty", "a.b does not exist", "c.d does not exist", "nothing.* cannot be loaded"]
    assert len(said) == len(wanted)
    for line, message in zip(said, wanted, strict=True):
        assert re.search(f"error: .*{message}", line), line
    assert not (tmp_path / "out").exists()
