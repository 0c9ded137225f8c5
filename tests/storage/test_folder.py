"""One process writes in a folder at a time, and output that cannot be used is told before the work."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.test_cli import model_folder, run
from tests.config.test_recipe import recipe
from tests.processes import runs, wait_until
from tests.report.test_report import made_study
from tiltlab.errors import UserError
from tiltlab.storage.files import read_json, write_text
from tiltlab.storage.folder import alone_in
from tiltlab.storage.records import read_records

EVALUATE = ["evaluate", "--task", "noisy-sum", "-n", "2", "--limit", "4", "--max-tokens", "8"]
HOLD = """
import sys
from pathlib import Path
from tiltlab.storage.folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """By another process, which is killed as the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: ")
    return said


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "evaluated"
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *EVALUATE, "-n", "4", "--out", str(folder)) == 0
    return folder


def writing(tmp_path: Path, evaluated: Path) -> dict[str, list[str]]:
    """The commands that fill a folder."""
    runs = [str(made_study(tmp_path / name)) for name in ("one", "two")]
    return {
        "evaluate": EVALUATE,
        "sample": ["sample", *EVALUATE[1:]],
        "study": ["study", recipe(tmp_path), "--jobs", "1"],
        "forecast": ["forecast", "--base", str(evaluated)],
        "verdict": ["verdict", "--base", str(evaluated), "--tuned", str(evaluated)],
        "compare": ["compare", *runs],
    }


@pytest.mark.parametrize("command", ["evaluate", "sample", "study", "forecast", "verdict", "compare"])
def test_the_second_in_a_folder_is_told_who_holds_it(
    command: str,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, out = writing(tmp_path, evaluated)[command], tmp_path / "out"
    with held(out) as other:
        assert run(monkeypatch, *arguments, "--out", str(out)) == 2
        assert f"another tiltlab is running in {out} (process {other.pid}: " in one_line(capsys)
        assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / ".lock").exists()
    assert run(monkeypatch, *EVALUATE, "--out", str(tmp_path / "out")) == 0
    assert len(read_records(tmp_path / "out" / "records.jsonl")) == 8


def test_a_block_that_fails_leaves_what_it_found(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "a" / "b"):
        write_text(tmp_path / "a" / "b" / "kept", "x")
        raise ZeroDivisionError
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [".lock", "kept"]


def test_a_report_is_made_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(made_study(tmp_path / "run")):
        assert run(monkeypatch, "report", str(tmp_path / "run")) == 0


def test_two_may_write_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = os.fsync, tmp_path / "report.html"

    def meanwhile(number: int) -> None:
        monkeypatch.setattr("os.fsync", real)
        write_text(path, "the other's")

    monkeypatch.setattr("os.fsync", meanwhile)
    write_text(path, "mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "report [1].html"
    code = """
import os, signal, sys
from pathlib import Path
from tiltlab.storage.files import write_text
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_text(Path(sys.argv[1]), "half")
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    mine = tmp_path / f"{path.name}.0.{os.getpid()}.part"  # of one who is writing still
    mine.write_text("x")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, mine])
    assert left != mine


def test_what_killed_writers_left_goes_when_a_folder_is_no_longer_held(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        (tmp_path / "cells").mkdir()
        left = tmp_path / "cells" / f"tokens.jsonl.0.{2**22 + 1}.part"  # beyond all numbers of processes
        left.write_text("x")
    assert not left.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say what has ended")
def test_a_part_of_a_writer_that_has_ended_goes_though_nobody_asked_for_its_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with subprocess.Popen([sys.executable, "-c", ""]) as writer:
        wait_until(lambda: not runs(writer.pid))  # its number stays taken
        (tmp_path / f"{path.name}.0.{writer.pid}.part").write_text("x")
        write_text(path, "whole")
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process began")
def test_a_part_of_a_writer_whose_number_another_process_has_now_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    left = tmp_path / f"{path.name}.0.{os.getpid()}.part"
    left.write_text("x")
    os.utime(left, (1e9, 1e9))  # long before this process began
    write_text(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["reference", "weights", "task", "responses"])
def test_a_failed_evaluation_leaves_room_for_the_mended_one(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "out"
    model = Path(model_folder(tmp_path / "model"))
    for path in model.glob("*.safetensors"):
        path.unlink()
    wrong = {
        "reference": ["--reference", str(tmp_path / "nope")],
        "weights": ["--model", str(model)],
        "task": ["--task", "data", "--data", str(tmp_path / "nope.jsonl")],
        "responses": ["--responses", str(tmp_path / "nope.jsonl")],
    }[fault]
    assert run(monkeypatch, *EVALUATE, *wrong, "--out", str(out)) == 2
    assert one_line(capsys)
    assert not out.parent.exists()
    assert run(monkeypatch, *EVALUATE, "--out", str(out)) == 0
    assert len(read_records(out / "records.jsonl")) == 8


def test_a_folder_without_a_finished_lot_is_anybodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill in the first lot leaves it."""
    assert run(monkeypatch, *EVALUATE, "--out", str(tmp_path)) == 0
    (tmp_path / "lots.jsonl").unlink()
    about = read_json(tmp_path / "sample.json")
    write_text(tmp_path / "sample.json", json.dumps({key: about[key] for key in ("recipe", "made")}))
    assert run(monkeypatch, *EVALUATE, "-n", "3", "--out", str(tmp_path)) == 0
    assert len(read_records(tmp_path / "records.jsonl")) == 12


def test_records_of_another_kind_are_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.jsonl"
    assert run(monkeypatch, *EVALUATE, "--out", str(tmp_path / "out")) == 0
    record = read_records(tmp_path / "out" / "records.jsonl")[0]
    write_text(theirs, json.dumps({"problem": record.problem, "text": "7"}) + "\n")
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    capsys.readouterr()
    graded = ["evaluate", "--task", "noisy-sum", "--responses", str(theirs)]
    assert run(monkeypatch, *graded, "--out", str(tmp_path / "out")) == 2
    assert "holds records that a model drew" in one_line(capsys)
    (tmp_path / "out" / "sample.json").unlink()
    assert run(monkeypatch, *EVALUATE, "--out", str(tmp_path / "out")) == 2
    assert "no sample.json that says of what" in one_line(capsys)
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before


def unusable(tmp_path: Path, fault: str) -> Path:
    (tmp_path / "file").write_text("x")
    (tmp_path / "locked" / ".lock").mkdir(parents=True)
    (tmp_path / "read-only").mkdir(mode=0o500)
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "a long name": tmp_path / ("x" * 300),
        "below a long name": tmp_path / ("x" * 300) / "out",
        "a folder for a lock": tmp_path / "locked",
        "not writable": Path("/proc/tiltlab") if os.geteuid() == 0 else tmp_path / "read-only" / "out",
    }[fault]


@pytest.mark.parametrize("command", ["evaluate", "study", "forecast", "verdict", "compare"])
@pytest.mark.parametrize(
    "fault",
    ["a file", "below a file", "a long name", "below a long name", "a folder for a lock", "not writable"],
)
def test_a_folder_that_cannot_be_used_is_one_line(
    command: str,
    fault: str,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, out = writing(tmp_path, evaluated)[command], unusable(tmp_path, fault)
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, *arguments, "--out", str(out)) == 2
    assert re.search("could not be written: .*choose another --out", one_line(capsys))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [["lab"], ["check", "noisy-sum"]])
@pytest.mark.parametrize("fault", ["a folder", "below a file", "a long name"])
def test_a_page_that_cannot_be_written_is_one_line(
    command: list[str],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path if fault == "a folder" else unusable(tmp_path, fault)
    monkeypatch.setattr("tiltlab.lab.lab.run_lab", lambda *_, **__: pytest.fail("the work was begun"))
    monkeypatch.setattr("tiltlab.evaluation.reward_audit.check", lambda *_, **__: pytest.fail("the work was begun"))
    assert run(monkeypatch, *command, "--out", str(out)) == 2
    assert "could not be written: " in one_line(capsys)


def test_a_report_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = made_study(tmp_path / "run")
    (study / "report.html").mkdir()
    assert run(monkeypatch, "report", str(study)) == 2
    assert "report.html could not be written: " in one_line(capsys)
    (study / "report.html").rmdir()
    (study / "tables").write_text("x")
    assert run(monkeypatch, "report", str(study)) == 2
    assert "could not be written: " in one_line(capsys)
    with pytest.raises(UserError, match="could not be written"):
        write_text(study / "tables" / "x", "x")
