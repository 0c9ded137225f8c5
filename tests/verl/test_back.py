"""What a run dumps into the exported folder, by the commands that its README.txt gives."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import run
from tests.verl.test_export import recipe, written
from tiltlab.config.recipe import Recipe
from tiltlab.models.loading import ModelConfig, load_codec
from tiltlab.storage.files import append_line, read_json, read_lines
from tiltlab.storage.records import read_records
from tiltlab.study.study import taught
from tiltlab.types import Record
from tiltlab.verl import reward

Ids = dict[tuple[str, int], list[int]]
"""Tokens of a response, by its problem and number."""

Drawn = tuple[list[Record], Ids]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Responses of the embedded model to validation problems, and their tokens."""
    out = str(tmp_path / "drawn")
    keys = ("--task", "lazy-sum", "-n", "8", "--limit", "5", "--max-tokens", "40", "--set", "split=validation")
    assert run(monkeypatch, "evaluate", *keys, "--out", out) == 0
    lines = read_lines(tmp_path / "drawn" / "ids.jsonl")
    return read_records(tmp_path / "drawn" / "records.jsonl"), {(x["problem"], x["sample"]): x["ids"] for x in lines}


def dumped(folder: Path, step: int, plan: Recipe, records: list[Record], ids: Ids) -> None:
    """As verl writes what the grader and the plug-in say of each response."""
    (task,), codec = taught(plan), load_codec(ModelConfig())
    problems = {problem.id: problem for problem in task.problems("validation")}
    (folder / "validation").mkdir(exist_ok=True)
    for record in records:
        problem, tokens = problems[record.problem], ids[record.problem, record.sample]
        about = {"id": problem.id, "question": problem.question}
        graded = reward.compute_score(task.name, record.text, problem.answer, about, json.dumps({"task": "lazy-sum"}))
        told: dict[str, Any] = {"complete": tokens[-1] in codec.end_ids, "tokens": len(tokens)}
        row = {"input": task.render(problem), "output": record.text, "gts": problem.answer, "score": graded["score"]}
        row |= {"step": step, "reward": graded["score"], **graded, **told, "ids": " ".join(map(str, tokens))}
        append_line(folder / "validation" / f"{step}.jsonl", row)


def commands(readme: str) -> list[str]:
    return [line.strip() for line in readme.splitlines() if line.startswith("    tiltlab ")]


def test_what_the_readme_says_runs(
    drawn: Drawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan, (records, ids) = recipe(), drawn
    written(plan, tmp_path / "out")
    dumped(tmp_path / "out", 0, plan, records, ids)
    dumped(tmp_path / "out", 3, plan, records, ids)
    monkeypatch.chdir(tmp_path / "out")
    verdict, evaluate, _ = commands(Path("README.txt").read_text())
    assert run(monkeypatch, *shlex.split(verdict)[1:]) == 0
    gain = read_json(Path("runs/verdict/verdict.json"))["gain"]
    assert (gain["problems"], gain["difference"]["value"]) == (5, 0)  # two dumps of one model
    assert run(monkeypatch, *shlex.split(evaluate)[1:]) == 0
    told = capsys.readouterr().err
    assert "no finish reason" not in told
    assert "no lengths" not in told
    back = {(r.problem, r.sample): r for r in read_records(Path("records/records.jsonl"))}
    for record in records:
        found = back[record.problem, record.sample]
        assert (found.text, found.answer, found.reason, found.reward) == (
            record.text, record.answer, record.reason, record.reward,
        )  # fmt: skip
        assert (found.tokens, found.complete) == (record.tokens, record.complete)


def test_log_p_is_filled_in_by_the_very_tokens(
    drawn: Drawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan, (records, ids) = recipe(), drawn
    written(plan, tmp_path / "out")
    dumped(tmp_path / "out", 3, plan, records, ids)
    out = tmp_path / "scored"
    keys = ("--model", "embedded", "--as", "both", "--task", "lazy-sum", "--out", str(out))
    assert run(monkeypatch, "score", str(tmp_path / "out" / "validation"), *keys) == 0
    assert (
        f"{len(records)} of {len(records)} responses scored, {len(records)} by the token ids" in capsys.readouterr().out
    )
    back = {(r.problem, r.sample): r for r in read_records(out / "records.jsonl")}
    for record in records:
        assert back[record.problem, record.sample].logp == pytest.approx(record.logp, abs=1e-3)
