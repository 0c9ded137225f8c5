"""Records of run folders: read as they are, or refused with file and line."""

import json
import math
from pathlib import Path

import pytest

from tests.stats.test_metrics import record
from tiltlab.errors import UserError
from tiltlab.report.evaluation import write_evaluation_page
from tiltlab.storage.files import append_line, keep_first, read_json, read_lines, write_json
from tiltlab.storage.records import read_records, record_line, write_records
from tiltlab.system.provenance import provenance

GOOD = record_line(record(1.0))


def spelt(key: str, value: str) -> str:
    return json.dumps({k: v for k, v in GOOD.items() if k != key})[:-1] + f', "{key}": {value}}}'


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n", "\n \r\n", "  "])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_a_whole_record_counts_however_the_file_begins_and_ends(tmp_path: Path, start: str, end: str) -> None:
    lines = [json.dumps(GOOD | {"sample": i}) for i in range(3)]
    path = tmp_path / "r.jsonl"
    path.write_bytes((start + "\r\n\n".join(lines) + end).encode())
    assert [found.sample for found in read_records(path)] == [0, 1, 2]


def test_lines_can_be_added_after_one_without_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps(GOOD | {"sample": i}) for i in range(3)))
    keep_first(path, 3)
    append_line(path, GOOD | {"sample": 3})
    assert [found.sample for found in read_records(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_record_that_was_cut_off_is_no_record(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"sample": 1})[:-cut])
    assert [found.sample for found in read_records(path)] == [0]
    keep_first(path, 2)
    assert path.read_text() == json.dumps(GOOD) + "\n"


def test_a_number_that_may_go_on_is_not_taken_for_a_line(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n12')
    assert read_lines(tmp_path / "m.jsonl") == [{"step": 1}]


NUMBERS = ["Infinity", "-Infinity", "1e400", "1" + "0" * 400, "true", '"3"', "[1]", '"' + "9" * 100_000 + '"']


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in ("tokens", "logp", "ref_logp", "sample", "reward") for value in NUMBERS]
    + [(key, value) for key in ("tokens", "sample") for value in ("-1", "2.5", "NaN", "null")]
    + [(key, value) for key in ("logp", "ref_logp") for value in ("0.5", "3")]
    + [("complete", value) for value in ('"false"', "0", "1", "null")]
    + [(key, value) for key in ("problem", "task", "text") for value in ("60", "null", '["a"]', "true")]
    + [("reason", '"' + "x" * 100_000 + '"'), ("answer", "5")],
)
def test_a_value_that_no_record_has_is_named(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD | {"sample": 1}) + "\n" + spelt(key, value) + "\n")
    with pytest.raises(UserError, match=rf"r.jsonl line 2\b.*{key}") as caught:
        read_records(path)
    said = str(caught.value).removeprefix(str(tmp_path))
    assert "\n" not in said
    assert len(said) < 300


def test_what_is_not_known_is_null_or_nan(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(spelt(key, "NaN") + "\n" for key in ("logp",)))
    assert math.isnan(read_records(path)[0].logp)
    write_records(path, [record(math.nan, ref_logp=-math.inf)])  # the reference rules it out
    (found,) = read_records(path)
    assert math.isnan(found.reward)
    assert math.isnan(found.ref_logp)


def test_keys_of_halved_characters_can_be_told(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD | {"\ud835" + "x" * 100_000: 1}) + "\n")
    with pytest.raises(UserError, match="line 1 is no record: .*is no key of a record") as caught:
        read_records(path)
    str(caught.value).encode()
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 300


def test_one_sample_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    lines = [GOOD, GOOD | {"task": "u"}, GOOD | {"sample": 1}, GOOD | {"text": "another"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="r.jsonl line 4 is sample 0 of problem 'p', as line 1 is"):
        read_records(path)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"text": "\xbd"}\n')
    with pytest.raises(UserError, match="r.jsonl line 2 cannot be read as UTF-8: its byte 11 is 0xbd"):
        read_records(path)
    (tmp_path / "s.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "s.json") == {"a": 1}


def test_a_page_shows_half_a_character_as_its_number(tmp_path: Path) -> None:
    write_records(tmp_path / "records.jsonl", [record(1.0, text="so \ud835 5")])
    write_json(tmp_path / "sample.json", {"questions": {"p": ["Q", "5"]}, "made": provenance()})
    assert "so \\ud835 5" in write_evaluation_page(tmp_path).read_text(encoding="utf-8")
