import json
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.files import jsonl, written
from tiltlab.datasets.files import is_file, read_rows
from tiltlab.errors import UserError

ITEMS: list[dict[str, Any]] = [
    {"problem": 'What is "1, 2"?\nSay \\boxed{}.', "answer": "\\frac{1}{2}", "level": "3"},
    {"problem": "caf\u00e9 \U0001f600", "answer": "0", "level": None},
]
KINDS = (".jsonl", ".json", ".parquet", ".csv")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / f"d{kind}", ITEMS)
    assert is_file(path)
    found = list(read_rows(path))
    assert [row for _, row in found] == ITEMS
    assert [where for where, _ in found] == [f"{path} {'line' if kind == '.jsonl' else 'row'} {i}" for i in (1, 2)]


def test_what_is_no_such_file_is_not_taken_for_one() -> None:
    assert is_file("a/B.JSONL")
    assert not any(is_file(name) for name in ("math500", "owner/name", "d.txt", "d.jsonl.gz", ""))


@pytest.mark.parametrize("kind", [".jsonl", ".json"])
def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d{kind}"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(read_rows(str(path))) == [(f"{path} line 1", {"a": 1}), (f"{path} line 3", {"a": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 holds a list"),
        ('{"problem": "a \\ud800 b", "answer": "1"}', "line 2 holds half a character"),
        ('{"problem": "q", "answer": "1", "\\udfff": 1}', "line 2 holds half a character"),
        ('{"problem": "q", "answer": ' + "1" * 5000 + "}", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"problem": "fine", "answer": "1"}, line)
    with pytest.raises(UserError, match=message):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", b"[1]", "d.json row 1 holds a int, not a JSON object"),
        ("d.json", b'[{"a": 1}', "data file .*d.json is not JSON .*needs a list of JSON objects"),
        ("d.json", b'[{"a": "\\ud800"}]', "d.json row 1 holds half a character"),
        ("d.csv", b"a,b\n1,2\n1,2,3\n", r"d.csv row 2 \(up to line 3\) has 3 cells and the header 2; put quotes"),
        ("d.csv", b'a,b\n"1\n1",2\n1\n', r"d.csv row 2 \(up to line 4\) has 1 cells"),
        ("d.csv", b"a,a\n1,2\n", "d.csv has two columns of one name"),
        ("d.csv", b'a,b\n"1"x,2\n', "d.csv line 2 is not CSV"),
        ("d.csv", b"a,b\n1," + b"2" * 200_000 + b"\n", "d.csv line 2 is not CSV .field larger"),
        ("d.parquet", b"PAR1 not really PAR1", "d.parquet cannot be read as Parquet"),
        ("d.parquet", b"", "d.parquet cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_rows(str(path)))
    assert "\n" not in str(caught.value)


def test_empty_cells_of_a_csv_file_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('a,b\n1,\n\n"",2\n')
    assert [row for _, row in read_rows(str(path))] == [{"a": "1", "b": None}, {"a": None, "b": "2"}]


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_cannot_be_opened_are_named(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"folder{kind}").mkdir()
    for name, message in (
        (str(tmp_path / f"folder{kind}"), "cannot be read: Is a directory"),
        (f"a\0b{kind}", "cannot be read: embedded null byte"),
        (str(tmp_path / f"nowhere{kind}"), "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            list(read_rows(name))

    def forbidden(*_: Any, **__: Any) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path / f"d{kind}", ITEMS)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(UserError, match=f"d{kind} cannot be read: Permission denied"):
        list(read_rows(path))


def test_numbers_that_are_none_are_kept(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", '{"problem": "\\ud83d\\ude00?", "score": NaN, "cost": Infinity}')
    ((_, row),) = read_rows(path)
    assert json.dumps(row) == '{"problem": "\\ud83d\\ude00?", "score": NaN, "cost": Infinity}'
