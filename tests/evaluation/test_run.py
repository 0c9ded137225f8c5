"""`tiltlab evaluate`: killed and begun again, it ends with the same records; what others drew is graded alike."""

import json
import shutil
from math import isnan
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.study.test_resume import full_for
from tiltlab.cli.main import app
from tiltlab.errors import UserError
from tiltlab.evaluation.run import from_elsewhere
from tiltlab.evaluation.token_logprobs import SPELLED
from tiltlab.report.evaluation import figures_of
from tiltlab.storage.files import keep_first, read_json, read_lines
from tiltlab.storage.records import read_records
from tiltlab.tasks.sums import Sums

pytestmark = pytest.mark.slow

EVALUATE = ["evaluate", "--model", "embedded", "--task", "lazy-sum", "-n", "4", "--limit", "40", "--max-tokens", "48"]


def test_figures_are_told_and_shown(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "accuracy" in done.stdout
    assert len(read_records(tmp_path / "records.jsonl")) == 160
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>" in page
    assert "First responses, by likelihood" in page


def test_the_first_responses_are_kept_token_by_token(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)]).exit_code == 0
    records = {record.problem: record for record in read_records(tmp_path / "records.jsonl") if record.sample == 0}
    found = read_lines(tmp_path / "tokens.jsonl")
    assert [line["problem"] for line in found] == list(records)
    for line in found:
        assert len(line["ranks"]) == records[line["problem"]].tokens
        assert sum(line["logp"]) == pytest.approx(records[line["problem"]].logp, abs=1e-3)
        assert line["logp"] == pytest.approx(line["ref_logp"], abs=1e-4)
    assert ["".join(line["pieces"]) for line in found[:SPELLED]] == [r.text for r in list(records.values())[:SPELLED]]
    assert all(line["pieces"] is None for line in found[SPELLED:])


def test_a_lot_whose_records_were_not_kept_loses_its_tokens_too(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)]).exit_code == 0
    before = (tmp_path / "tokens.jsonl").read_bytes()
    keep_first(tmp_path / "lots.jsonl", 1)  # as if killed after the tokens and records of the second lot
    (tmp_path / "sample.json").write_text(
        json.dumps({k: v for k, v in read_json(tmp_path / "sample.json").items() if k != "info"}), encoding="utf-8"
    )
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "tokens.jsonl").read_bytes() == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(out)]).exit_code == 0
    return out


@pytest.mark.parametrize("name", ["records.jsonl", "tokens.jsonl", "lots.jsonl"])
@pytest.mark.parametrize("torn", [b"", b'{"half": "a li', b"\0\0\0\n", b"not\n{}\n"])
def test_what_was_cut_short_or_damaged_is_drawn_again(name: str, torn: bytes, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    lines = (out / name).read_bytes().splitlines(keepends=True)
    (out / name).write_bytes(b"".join(lines[: 2 * len(lines) // 3]) + torn)
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(out)]).exit_code == 0
    for file in ("records.jsonl", "tokens.jsonl"):
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    assert len(read_lines(out / "lots.jsonl")) == len(read_lines(whole / "lots.jsonl"))


def test_one_that_an_older_version_began_goes_on(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    about = read_json(out / "sample.json")
    for key in ("date", "lot", "info", "questions"):
        about.pop(key, None)
    del about["recipe"]["model"]["date"]
    (out / "sample.json").write_text(json.dumps(about))
    lots = (out / "lots.jsonl").read_bytes().splitlines(keepends=True)
    (out / "lots.jsonl").write_bytes(b"".join(lots[:1]))
    ended = CliRunner().invoke(app, [*EVALUATE, "--out", str(out)])
    assert ended.exit_code == 0, ended.exception
    assert (out / "records.jsonl").read_bytes() == (whole / "records.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["tokens.jsonl", "records.jsonl", "lots.jsonl", "sample.json", "report.html"])
def test_a_full_disk_ends_an_evaluation_and_loses_nothing(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_for(name, monkeypatch, after=1 if name in ("records.jsonl", "sample.json") else 0):
        failed = CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)])
    assert isinstance(failed.exception, UserError)
    assert f"{name} could not be written: No space left on device; free some space" in str(failed.exception)
    assert CliRunner().invoke(app, [*EVALUATE, "--out", str(tmp_path)]).exit_code == 0
    for file in ("records.jsonl", "tokens.jsonl"):
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes()
    assert not list(tmp_path.rglob("*part*"))


def test_a_folder_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    small = ["evaluate", "--task", "noisy-sum", "-n", "2", "--limit", "2", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, small).exit_code == 0
    before = (tmp_path / "records.jsonl").read_bytes()
    other = CliRunner().invoke(app, [*small, "--set", "seed=1"])
    assert isinstance(other.exception, UserError)
    assert "another seed" in str(other.exception)
    assert (tmp_path / "records.jsonl").read_bytes() == before
    assert CliRunner().invoke(app, [*small, "--set", "model.batch_tokens=512"]).exit_code == 0


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_responses_from_elsewhere_are_graded(tmp_path: Path) -> None:
    task = Sums("noisy-sum")
    problem = task.problems("test")[0]
    file = lines(
        tmp_path / "responses.jsonl",
        {"problem": problem.id, "text": f"so {problem.answer}", "tokens": 5, "logp": -1.5},
        {"question": problem.question, "text": "<script>alert(1)</script>"},
    )
    records = from_elsewhere(file, task, tmp_path / "out")
    assert [record.reason for record in records] == ["correct", "no_answer"]
    assert [record.sample for record in records] == [0, 1]
    assert isnan(records[0].ref_logp)
    kept = read_records(tmp_path / "out" / "records.jsonl")
    assert (kept[0].logp, isnan(kept[1].logp)) == (-1.5, True)
    assert figures_of("x", kept).accuracy.value == 0.5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "none", "text": "7"}, "line 1: 'none' is no problem"),
        ({"problem": "96+47"}, "line 1"),
        ({"problem": None, "text": "7"}, "line 1"),
        ("text", "line 1 holds a str, not a JSON object"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        from_elsewhere(lines(tmp_path / "r.jsonl", row), Sums("noisy-sum"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x" * 300, "../x", "CON", "a/b", "a\nb", "\u202e"])
def test_any_task_name_makes_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "q.jsonl", {"id": "a", "problem": "Q", "answer": "5"})
    lines(tmp_path / "r.jsonl", {"problem": "a", "text": "5"})
    task = json.dumps({"task": "data", "name": name, "test": "q.jsonl"})
    done = CliRunner().invoke(app, ["evaluate", "--responses", "r.jsonl", "--task", task])
    assert done.exit_code == 0, done.exception
    (folder,) = (tmp_path / "runs").iterdir()
    assert {"records.jsonl", "report.html"} <= {path.name for path in folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"q.jsonl", "r.jsonl", "runs"}
