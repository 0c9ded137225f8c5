"""A slow model does not look hung: how far it is is told within a batch, and what is drawn is written lot by lot."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import run
from tiltlab.cli import progress
from tiltlab.evaluation import run as evaluation
from tiltlab.models.head import Head
from tiltlab.storage.files import read_json, read_lines, write_json

EVALUATE = ["evaluate", "--task", "lazy-sum", "-n", "4", "--limit", "8", "--max-tokens", "48"]


@pytest.mark.parametrize("sampler", ["base", "greedy", "power_smc"])
def test_a_batch_tells_how_far_it_is_where_there_is_no_terminal(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*EVALUATE, "--sampler", sampler]
    assert run(monkeypatch, *options, "--out", str(tmp_path / "quick")) == 0
    head = Head.__call__

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return head(*arguments)

    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setattr(Head, "__call__", slow)
    capsys.readouterr()
    assert run(monkeypatch, *options, "--out", str(tmp_path / "slow")) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if " so far" in line]
    within = [line for line in told if re.search(r", [1-9]\d* tokens: .* so far, [0-7] of 8, about .* left", line)]
    assert within, told
    for name in ("records.jsonl", "tokens.jsonl"):
        assert (tmp_path / "slow" / name).read_bytes() == (tmp_path / "quick" / name).read_bytes()


def test_no_line_is_told_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    monkeypatch.setattr(progress.errors, "_force_terminal", True)
    with progress.bars() as shown:
        shown.add_task("x", total=2)
        time.sleep(0.1)
    assert "so far" not in capsys.readouterr().err


def test_responses_that_fill_a_forward_are_written_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*EVALUATE, "--set", "model.batch_tokens=512"]
    assert run(monkeypatch, *options, "--out", str(tmp_path / "whole")) == 0
    assert read_json(tmp_path / "whole" / "sample.json")["lot"] == 2
    assert len(read_lines(tmp_path / "whole" / "lots.jsonl")) == 4
    drawn = evaluation.evaluate
    calls = []

    def stopped(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return drawn(*arguments, **options)

    with monkeypatch.context() as within:
        within.setattr(evaluation, "evaluate", stopped)
        assert run(within, *options, "--out", str(tmp_path / "out")) != 0
    assert len(read_lines(tmp_path / "out" / "records.jsonl")) == 2 * 2 * 4
    assert run(monkeypatch, *options, "--out", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


def test_a_folder_of_before_goes_on_in_its_own_lots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*EVALUATE, "--out", str(tmp_path), "--set", "model.batch_tokens=512"]
    assert run(monkeypatch, *options) == 0
    before = (tmp_path / "records.jsonl").read_bytes()
    about = read_json(tmp_path / "sample.json")
    write_json(tmp_path / "sample.json", {key: about[key] for key in about if key not in ("lot", "info")})
    (tmp_path / "lots.jsonl").write_text((tmp_path / "lots.jsonl").read_text().splitlines()[0] + "\n")  # one lot of 8
    assert run(monkeypatch, *options) == 0
    assert len(read_lines(tmp_path / "lots.jsonl")) == 1
    assert (tmp_path / "records.jsonl").read_bytes() == before
