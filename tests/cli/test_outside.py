"""Commands on the files of other programs."""

import json
import sys
from math import isnan
from pathlib import Path

import pytest

from tests.records import writers
from tests.records.study import drawn, gold, question, written_task
from tiltlab.cli.main import main
from tiltlab.storage.records import read_records
from tiltlab.storage.token_ids import read_ids
from tiltlab.tasks.sums import Sums

BASE, TUNED = drawn("only the format learnt")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tiltlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code or 0))


def problems(folder: Path) -> Path:
    written_task(folder)
    return folder / "problems.jsonl"


def test_a_verdict_on_two_validation_dumps_of_verl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = writers.lines(tmp_path / "0.jsonl", writers.verl_rows(BASE, 0))
    tuned = writers.lines(tmp_path / "500.jsonl", writers.verl_rows(TUNED, 500))
    options = ["--base", base, "--tuned", tuned, "--data", problems(tmp_path), "--out", tmp_path / "out", "--json"]
    assert run(monkeypatch, "verdict", *options) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["outcome"] == "form explains it"
    assert "0.jsonl: a dump of verl, 480 responses of step 0" in told.err
    assert "480 of 480 responses answer 60 of 60 problems" in told.err
    page = (tmp_path / "out/verdict.html").read_text(encoding="utf-8")
    assert question("3") in page


def test_a_verdict_by_the_files_own_grades_needs_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [writers.inspect_eval(records, tmp_path / side) for side, records in (("a", BASE), ("b", TUNED))]
    options = ["--base", paths[0], "--tuned", paths[1], "--grades", "theirs", "--out", tmp_path / "out"]
    assert run(monkeypatch, "verdict", *options) == 0
    assert "grades are the file's own (match)" in " ".join(capsys.readouterr().err.split())


def test_plain_rows_are_read_by_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = writers.plain(BASE, tmp_path)
    for given in (["--map", writers.FIELDS], ["--data", problems(tmp_path), "--fields", writers.FIELDS]):
        assert run(monkeypatch, "forecast", "--base", file, *given, "--out", tmp_path / "out", "--json") == 0
        assert json.loads(capsys.readouterr().out)["problems"] == 60


def test_what_another_program_drew_becomes_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = writers.prime_rl(TUNED, tmp_path), tmp_path / "out"
    options = ["--responses", file.parent, "--data", problems(tmp_path), "--out", out]
    assert run(monkeypatch, "evaluate", *options) == 0
    records = read_records(out / "records.jsonl")
    assert [r.text for r in records] == [r.text for r in TUNED]
    assert [r.ref_logp for r in records] == pytest.approx([r.ref_logp for r in TUNED])
    assert json.loads((out / "sample.json").read_text())["questions"]["3"] == [question("3"), str(gold("3"))]
    assert (
        run(monkeypatch, "evaluate", "--responses", writers.verl(TUNED, tmp_path / "verl"), "--out", tmp_path / "b")
        == 0
    )


def test_a_damaged_file_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = writers.verl_rows(BASE)
    del rows[6]["output"]
    file = writers.lines(tmp_path / "0.jsonl", rows)
    for command in (
        ["verdict", "--base", file, "--tuned", file],
        ["forecast", "--base", file],
        ["evaluate", "--responses", file],
    ):
        assert run(monkeypatch, *command, "--out", tmp_path / "out") == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("error:") == 1
        assert "0.jsonl line 7 has no output" in " ".join(told.err.split())
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 x 8 responses of the embedded model."""
    out = tmp_path_factory.mktemp("own") / "records"
    keys = ("--task", "lazy-sum", "-n", "8", "--limit", "12", "--max-tokens", "24", "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "evaluate", *keys) == 0
    return out


def dumped(own: Path, folder: Path) -> Path:
    """The same as another program would leave them: nothing but prompt, response and how it ended."""
    asked = {problem.id: problem.question for problem in Sums("lazy-sum").problems("test")}
    rows = [
        {"prompt": asked[r.problem], "response": r.text, "why": "stop" if r.complete else "length", "n": r.tokens}
        for r in read_records(own / "records.jsonl")
    ]
    return writers.lines(folder / "dump.jsonl", rows)


MAP = ("--map", "text=response,prompt=prompt,finish=why,tokens=n")


def test_the_base_s_log_p_is_filled_in_for_another_program_s_records(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = dumped(own, tmp_path)
    keys = ("--model", "embedded", "--task", "lazy-sum", *MAP, "--out", tmp_path / "scored")
    assert run(monkeypatch, "score", file, *keys) == 0
    before, after = read_records(own / "records.jsonl"), read_records(tmp_path / "scored/records.jsonl")
    assert [r.text for r in before] == [r.text for r in after]
    known = [(a.logp, b.ref_logp) for a, b in zip(before, after, strict=True) if not isnan(b.ref_logp)]
    assert len(known) > 80
    assert all(b == pytest.approx(a, abs=1e-4) for a, b in known)


def test_a_verdict_on_another_program_s_records_takes_the_base_model_itself(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ("--base", "embedded", "--tuned", dumped(own, tmp_path), "--task", "lazy-sum", *MAP, "-n", "8")
    assert run(monkeypatch, "verdict", *keys, "--max-tokens", "24", "--out", tmp_path / "out", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["outcome"] in ("no gain", "cannot tell")
    assert "no log-probabilities under the base" not in told.err
    assert all(isnan(r.ref_logp) is False for r in read_records(tmp_path / "out/base/records.jsonl"))


def test_token_ids_of_another_program_are_kept_beside_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = writers.open_instruct(TUNED, tmp_path)
    assert run(monkeypatch, "evaluate", "--responses", file, "--tokenizer", tmp_path, "--out", tmp_path / "out") == 0
    ids, records = read_ids(tmp_path / "out/ids.jsonl"), read_records(tmp_path / "out/records.jsonl")
    assert [len(ids[r.problem, r.sample]) for r in records] == [r.tokens for r in records]
