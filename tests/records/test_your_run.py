"""Each block of docs/your-run.md that starts from files, run on files as those programs leave them."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.records import writers
from tests.records.study import drawn, written_task
from tests.test_docs import ROOT, commands
from tiltlab.types import Record

WRITERS: dict[str, Callable[[list[Record], Path], Path]] = {
    "prime-rl": writers.prime_rl,
    "nemo-rl": writers.nemo_rl,
    "open-instruct": writers.open_instruct,
    "lm-eval": writers.lm_eval,
    "inspect": writers.inspect_eval,
    "batch": writers.openai,
    "mine": writers.plain,
}
BLOCKS = [one for one in commands(ROOT / "docs" / "your-run.md") if one.startswith("tiltlab verdict --base runs/")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every program leaves: the base answers little in the form asked for, and the tuned model has learnt it."""
    folder = tmp_path_factory.mktemp("runs")
    base, tuned = drawn("only the format learnt")
    written_task(folder)
    for name, write in WRITERS.items():
        write(base, folder / "runs" / name / "base")
        write(tuned, folder / "runs" / name / "tuned")
    for step, records in ((0, base), (500, tuned)):
        writers.lines(folder / "runs" / "verl" / f"{step}.jsonl", writers.verl_rows(records, step))
        writers.trl(records, folder / "runs" / "trl", step)
    traces = folder / "runs" / "open-instruct"
    (traces / "tuned" / "tokenizer.json").unlink()
    (traces / "base" / "tokenizer.json").rename(traces / "tokenizer.json")  # it comes with the model, not with traces
    return folder


def test_there_is_a_block_for_each() -> None:
    assert {shlex.split(command)[3].split("/")[1] for command in BLOCKS} == {*WRITERS, "verl", "trl"}


@pytest.mark.parametrize("command", BLOCKS, ids=[shlex.split(command)[3].split("/")[1] for command in BLOCKS])
def test_a_block_ends_with_the_verdict(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = [*shlex.split(command)[1:], "--out", str(tmp_path / "verdict"), "--json"]
    assert run(monkeypatch, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "form explains it"
    assert (tmp_path / "verdict" / "verdict.html").is_file()
