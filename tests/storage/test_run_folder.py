import json
import math
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.stats.test_metrics import record
from tiltlab.errors import UserError
from tiltlab.storage.checkpoints import Checkpoints
from tiltlab.storage.files import (
    append_lines,
    keep_first,
    read_json,
    read_lines,
    slug,
    whole_lines,
    write_lines,
    write_text,
)
from tiltlab.storage.records import read_records, record_line, write_records


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = [
        record(1.0, text='two\nlines, "quotes", </script> and \udcff a lone surrogate'),
        record(0.5, answer="7", sample=1),
    ]
    write_records(tmp_path / "r.jsonl", [*records, record(math.nan, sample=2)])
    found = read_records(tmp_path / "r.jsonl")
    assert found[:2] == records
    assert math.isnan(found[2].reward)
    assert [json.loads(line)["reward"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [1.0, 0.5, None]


def test_a_line_that_was_not_finished_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append_lines(path, [{"step": step} for step in range(3)])
    with path.open("a") as file:
        file.write('{"step": 3, "rew')
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2]
    keep_first(path, 2)
    append_lines(path, [{"step": 2}])
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2]
    assert read_lines(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"step": 2', b"\0\0\0\n", b"[2]\n", b"\xff\n", b'{"st{"step": 3}\n', b"\n"])
def test_lines_are_whole_up_to_the_first_that_is_not(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "m.jsonl"
    append_lines(path, [{"step": 0}, {"step": 1, "x": math.nan}])
    path.write_bytes(path.read_bytes() + torn + b'\n{"step": 3}\n')
    assert [line["step"] for line in whole_lines(path)] == [0, 1]
    keep_first(path, 9)
    assert path.read_text() == '{"step": 0}\n{"step": 1, "x": NaN}\n'
    assert whole_lines(tmp_path / "nothing.jsonl") == []


def test_lines_that_are_there_already_are_not_written_again(tmp_path: Path) -> None:
    write_lines(tmp_path / "none.jsonl", [])
    assert not (tmp_path / "none.jsonl").exists()
    write_lines(tmp_path / "m.jsonl", [{"step": 0}])
    before = (tmp_path / "m.jsonl").stat().st_ino
    write_lines(tmp_path / "m.jsonl", [{"step": 0}])
    assert (tmp_path / "m.jsonl").stat().st_ino == before


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.new(10, 0) as folder:
        (folder / "weights").write_text("ten")
        assert checkpoints.steps() == []
    with pytest.raises(ZeroDivisionError), checkpoints.new(20, 0) as folder:
        (folder / "weights").write_text("twe")
        raise ZeroDivisionError
    assert checkpoints.steps() == [10]
    with checkpoints.new(10, 0) as folder:
        (folder / "weights").write_text("ten again")
    assert (checkpoints.step(10) / "weights").read_text() == "ten again"


def test_what_a_killed_save_left_is_cleared_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        with checkpoints.new(step, 0):
            pass
    (tmp_path / "part-000020").mkdir()
    checkpoints.keep({5, 15})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000005", "step-000015"]


def test_a_full_disk_is_said_before_and_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.new(10, 0):
        pass
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with (
        pytest.raises(UserError, match="no room for the checkpoint of step 20.*step 10 is kept"),
        checkpoints.new(20, 5 * 10**8),
    ):
        raise AssertionError("nothing may be written")
    assert checkpoints.steps() == [10]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left")])
def test_a_disk_that_fills_up_while_writing_keeps_what_is_there(tmp_path: Path, error: Exception) -> None:
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.new(10, 0):
        pass
    with pytest.raises(UserError, match="could not be written.*step 10 is kept"), checkpoints.new(20, 0) as folder:
        (folder / "weights").write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_slugs_are_safe_folder_names() -> None:
    assert slug("tilted 0.1, alpha 2") == "tilted-0.1--alpha-2"
    assert slug("../../etc") == "-..-etc"
    assert slug("..") == "-"
    hostiles = ["../x", "/etc/passwd", "a\0b", "a\nb", "CON", "nul.txt", "x.", ".x", "", "\ud800", "a\\b", "c:", "~"]
    for hostile in hostiles:
        name = slug(hostile)
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert name.strip(".") == name != ""
        assert name.split(".")[0] not in ("con", "nul")


@pytest.mark.parametrize("letter", ["x", "漢", "-", "."])
def test_long_labels_are_cut_and_told_apart(letter: str) -> None:
    labels = [f"{letter}a" * 300 + end for end in ("", "1", "2", " ")]
    names = [slug(label) for label in labels]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 120 for name in names)
    assert names == [slug(label) for label in labels]
    assert slug("x" * 120) == "x" * 120


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": "whatever"}, "line 2: reason 'whatever' is none of correct, wrong"),
        ({"logp": "-2"}, "line 2 is no record: logp cannot be '-2'"),
        ({"complete": None}, "complete cannot be None"),
        ({"foo": 1}, "foo is no key of a record"),
        (None, "line 2 is no record: it is not a JSON object"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, change: dict[str, object] | None, said: str) -> None:
    good = record_line(record(1.0))
    append_lines(tmp_path / "r.jsonl", [good, good | change if change else []])  # type: ignore[list-item]
    with pytest.raises(UserError, match=said):
        read_records(tmp_path / "r.jsonl")


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nnot\n', encoding="utf-8")
    with pytest.raises(UserError, match="a.jsonl line 2 is not JSON"):
        read_lines(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_bytes(bytes(range(128, 160)))
    with pytest.raises(UserError, match="b.json line 1 cannot be read as UTF-8: its byte 1 is 0x80"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        read_json(tmp_path / "none.json")
