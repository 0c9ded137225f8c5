"""What goes to which stream: --json gives one object on stdout and nothing else there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import ROWS, data, run
from tests.config.test_recipe import recipe


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "out"
    options = ["--task", "lazy-sum", "-n", "4", "--limit", "4", "--max-tokens", "48"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, "evaluate", *options, "--out", str(out)) == 0
    return out


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> dict[str, Any]:
    """The object that a command writes; what people would have read stands on the error stream."""
    capsys.readouterr()
    assert run(monkeypatch, *arguments, "--json") == code
    said = capsys.readouterr()
    assert said.err.strip()
    found = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(found, dict)
    return found


def test_an_evaluation_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--task", "lazy-sum", "-n", "2", "--limit", "3", "--out", str(tmp_path / "out")]
    found = told(monkeypatch, capsys, "evaluate", *options)
    assert (found["problems"], found["n"]) == (3, 2)
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert found["sampling"]["drawn"] > 0
    assert Path(found["page"]).is_file()


def test_records_of_another_engine_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = data(tmp_path / "test.jsonl", *ROWS)
    responses = data(tmp_path / "r.jsonl", {"question": "What is 3?", "text": r"\boxed{3}"})
    options = ["--task", "data", "--data", problems, "--responses", responses, "--out", str(tmp_path / "out")]
    found = told(monkeypatch, capsys, "evaluate", *options)
    assert found["accuracy"]["value"] == 1
    assert found["logp"] is None  # unknown, and NaN is no JSON


def test_a_forecast_as_json(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(monkeypatch, capsys, "forecast", "--base", str(records), "--out", str(tmp_path / "out"))
    assert {"points", "slope", "problems"} <= set(found)


def test_a_forecast_that_draws_first_writes_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--base", "embedded", "--task", "lazy-sum", "-n", "4", "--limit", "2", "--max-tokens", "64"]
    assert "points" in told(monkeypatch, capsys, "forecast", *options, "--out", str(tmp_path / "out"))


def test_a_verdict_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--base", "embedded", "--tuned", "embedded", "--task", "lazy-sum", "-n", "4", "--limit", "4"]
    assert isinstance(told(monkeypatch, capsys, "verdict", *both, "--out", str(tmp_path / "out"))["outcome"], str)


def test_a_comparison_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, arms=["base"])
    runs = [str(tmp_path / name) for name in ("one", "two")]
    for out in runs:
        assert run(monkeypatch, "study", path, "--out", out, "--jobs", "1") == 0
    found = told(monkeypatch, capsys, "compare", *runs, "--out", str(tmp_path / "both"))
    assert [(side["arm"], side["run"]) for side in found["sides"]] == [("base", "one"), ("base", "two")]


def test_a_check_that_fails_still_writes_its_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "check.html"), "--limit", "4"]
    assert told(monkeypatch, capsys, "check", "lazy-sum", *out)["failures"] == []
    reward = ["--reward", "tests.rewards_for_tests:length"]
    found = told(monkeypatch, capsys, "check", "lazy-sum", *reward, *out, code=1)
    assert found["failures"]


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    name, number = capsys.readouterr().out.split()
    assert (name, number.count(".")) == ("tiltlab", 2)


def test_completion_is_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    assert "--install-completion" in capsys.readouterr().out


PROGRAM = ["-c", "from tiltlab.cli.main import main; main()"]


@pytest.mark.parametrize("arguments", [["report"], ["--version"], ["--help"]])
def test_what_needs_no_model_imports_no_torch(arguments: list[str], records: Path) -> None:
    folder = [str(records)] * (arguments == ["report"])
    command = [sys.executable, "-X", "importtime", *PROGRAM, *arguments, *folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not {"torch", "transformers", "datasets"} & imported
