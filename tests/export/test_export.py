"""Records for other programs: whole, and read back by those programs."""

import datetime as dt
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub._eval_results import parse_eval_result_entries
from huggingface_hub.errors import HFValidationError

from tests.cli.test_cli import run
from tiltlab.cli.export import To, write
from tiltlab.errors import UserError
from tiltlab.export.eval_results import write_eval_results
from tiltlab.export.hub import push
from tiltlab.export.tables import write_dataset, write_parquet
from tiltlab.storage.records import read_records, record_line
from tiltlab.types import Reason, Record


def record(problem: str, sample: int, reason: Reason = "correct", **changes: Any) -> Record:
    known: dict[str, Any] = {"task": "math500", "text": "so 2", "answer": "2", "tokens": 3, "complete": True}
    known |= {"problem": problem, "sample": sample, "reason": reason, "logp": -1.5, "ref_logp": -2.5}
    known["reward"] = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0}.get(reason, math.nan)
    return Record(**(known | changes))


RECORDS = [
    record("a", 0),
    record("a", 1, "wrong", answer="3", complete=False, logp=math.nan),
    record("b", 0, "no_answer", answer=None, text="half a pair \ud800 and </script>"),
    record("b", 1, "timeout"),
]
QUESTIONS = {"a": ["1+1?", "2"]}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "records"
    keys = ("--task", "lazy-sum", "-n", "2", "--limit", "3", "--max-tokens", "24", "--out", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "evaluate", *keys, "--export", "parquet", "--export", "inspect") == 0
    return folder


def test_parquet_holds_every_value(tmp_path: Path) -> None:
    write_parquet(tmp_path / "r.parquet", RECORDS, QUESTIONS)
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    for row, wanted in zip(rows, RECORDS, strict=True):
        known = record_line(wanted) | {"text": wanted.text.replace("\ud800", "\\ud800")}
        question, gold = QUESTIONS.get(wanted.problem, (None, None))
        assert row == known | {"question": question, "gold": gold}


def test_a_dataset_folder_loads(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", RECORDS, QUESTIONS, "math500: some model")
    loaded = datasets.load_dataset(str(tmp_path / "d"), split="test", cache_dir=str(tmp_path / "cache"))
    assert [row["sample"] for row in loaded] == [0, 1, 0, 1]
    assert loaded[1]["logp"] is None


def test_evaluate_writes_other_formats_beside_its_records(evaluated: Path) -> None:
    records = read_records(evaluated / "records.jsonl")
    assert pq.read_table(evaluated / "records.parquet").num_rows == len(records) == 6
    assert len(json.loads((evaluated / "inspect.json").read_text())["samples"]) == 6


def test_inspect_reads_its_log_back(evaluated: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
    records = read_records(evaluated / "records.jsonl")
    read = log.read_eval_log(str(evaluated / "inspect.json"))
    assert (read.status, read.eval.task) == ("success", "lazy-sum")
    assert [(s.id, s.epoch - 1, s.output.completion) for s in read.samples] == [
        (r.problem, r.sample, r.text) for r in records
    ]
    right = sum(s.scores["tiltlab"].value == "C" for s in read.samples)
    assert right == sum(r.reason == "correct" for r in records)
    assert {s.output.stop_reason for s in read.samples if s.output.usage.output_tokens == 24} == {"max_tokens"}


def test_the_hub_reads_the_figure_of_a_model_card(tmp_path: Path) -> None:
    path = tmp_path / "math500.yaml"
    write_eval_results(path, RECORDS, "tiltlab", dt.date(2026, 11, 26))
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.value) == ("HuggingFaceH4/MATH-500", 25.0)  # a: 1 of 2, b: 0 of 1 that is known
    with pytest.raises(UserError, match="lazy-sum"):
        write_eval_results(path, [record("a", 0, task="lazy-sum")], "", dt.date(2026, 11, 26))


class Hub:
    """Stands for the hub: takes what it is given, or refuses."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal, self.seen = refusal, list[tuple[str, dict[str, Any]]]()

    def create_repo(self, repo_id: str, **more: Any) -> None:
        if self.refusal:
            raise self.refusal
        self.seen.append((repo_id, more))

    def upload_folder(self, **more: Any) -> None:
        self.seen.append((more["repo_id"], more | {"files": sorted(p.name for p in more["folder_path"].rglob("*"))}))


def test_a_push_takes_records_and_page_to_a_private_data_set(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert run(monkeypatch, "push", str(evaluated), "--repository", "me/mine") == 0
    (_, made), (_, sent) = hub.seen
    assert made == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert sent["files"] == ["README.md", "data", "report.html", "test-00000-of-00001.parquet"]
    assert "datasets/me/mine" in capsys.readouterr().out
    run(monkeypatch, "push", str(evaluated), "--repository", "me/mine", "--public")
    assert hub.seen[2][1]["private"] is False


@pytest.mark.parametrize("refusal", [HFValidationError("no such name"), ConnectionError("nobody there")])
def test_what_the_hub_refuses_is_one_line_and_nothing_is_lost(tmp_path: Path, refusal: Exception) -> None:
    with pytest.raises(UserError, match="me/mine could not be written on the hub"):
        push(tmp_path, "me/mine", private=True, api=Hub(refusal))


def test_what_is_used_of_the_hub_is_there() -> None:
    """The stand-in takes what the real one does."""
    import inspect

    for call, used in (
        (HfApi.create_repo, {"repo_id", "repo_type", "private", "exist_ok"}),
        (HfApi.upload_folder, {"repo_id", "repo_type", "folder_path", "commit_message"}),
    ):
        assert used <= inspect.signature(call).parameters.keys()


@pytest.mark.parametrize("break_it", [lambda f: f.unlink(), lambda f: f.write_text("{}"), lambda f: f.write_text("")])
def test_records_that_cannot_be_read_are_not_exported(tmp_path: Path, break_it: Callable[[Path], Any]) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("x")
    break_it(file)
    with pytest.raises(UserError):
        write(tmp_path, To.PARQUET, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
