"""Responses of other engines: every line is a record, or is named and refused before anything is written."""

import json
from math import isnan
from pathlib import Path

import pytest

from tests.tasks.files import jsonl
from tiltlab.errors import UserError
from tiltlab.evaluation.responses import Response, read_responses
from tiltlab.evaluation.run import from_elsewhere
from tiltlab.report.evaluation import write_evaluation_page
from tiltlab.storage.records import read_records
from tiltlab.tasks.dataset import Data
from tiltlab.types import Problem

PROBLEMS = [Problem(name, f"Question {name}?", "5") for name in ("a", "b", "60", "7.5")]
FINE = {"problem": "a", "text": "5"}


def read(path: Path, content: str | bytes) -> list[Response]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_responses(path, PROBLEMS, "the test")


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n  \n", "\r\n\ufeff"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff\ufeff", "\n\r\n"])
def test_every_line_is_a_response_however_the_file_begins_and_ends(tmp_path: Path, start: str, end: str) -> None:
    lines = [json.dumps({"problem": name, "text": "\u2028"}, ensure_ascii=False) for name in "aba"]
    found = read(tmp_path / "r.txt", start + "\r\n\n".join(lines) + end)
    assert [(response.problem.id, response.sample) for response in found] == [("a", 0), ("b", 0), ("a", 1)]


@pytest.mark.parametrize(
    ("name", "found"), [(60, "60"), (60.0, "60"), ("60", "60"), (7.5, "7.5"), ("a", "a"), ("Question a?", "a")]
)
def test_ids_may_be_numbers(tmp_path: Path, name: object, found: str) -> None:
    (response,) = read(tmp_path / "r.jsonl", json.dumps({"problem": name, "text": "5"}))
    assert response.problem.id == found


def test_ids_that_are_numbers_on_both_sides_are_graded(tmp_path: Path) -> None:
    rows = [{"id": 60, "problem": "Q", "answer": 5}, {"id": 61.0, "problem": "R", "answer": 6.0}]
    task = Data("data", test=jsonl(tmp_path / "q.jsonl", *rows), grader="number")
    lines = [{"problem": 60.0, "text": "\\boxed{5}"}, {"problem": 61, "text": "\\boxed{6}"}]
    records = from_elsewhere(Path(jsonl(tmp_path / "r.jsonl", *lines)), task, tmp_path / "out")
    assert [(record.problem, record.reason) for record in records] == [("60", "correct"), ("61", "correct")]


def test_what_is_not_known_is_left_open(tmp_path: Path) -> None:
    nothing = '{"problem": null, "question": "Question b?", "text": "", "tokens": NaN, "complete": null, "logp": NaN}'
    (response,) = read(tmp_path / "r.jsonl", nothing)
    assert (response.problem.id, response.text, response.tokens, response.complete) == ("b", "", 0, True)
    assert isnan(response.logp)
    assert isnan(response.ref_logp)
    given = FINE | {"tokens": 3.0, "complete": False, "logp": -2, "ref_logp": 1e-6, "sample": 4}
    (response,) = read(tmp_path / "r.jsonl", json.dumps(given))
    assert response == Response(PROBLEMS[0], 4, "5", 3, False, -2.0, 1e-6)


NUMBERS = ["Infinity", "-Infinity", "1e400", "1" + "0" * 400, "-1" + "0" * 400, "true", '"3"', "[1]", '{"a": 1}']


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in ("tokens", "logp", "ref_logp", "sample") for value in NUMBERS]
    + [(key, value) for key in ("tokens", "sample") for value in ("-1", "2.5", "1e20", "-0.5")]
    + [(key, value) for key in ("logp", "ref_logp") for value in ("0.5", "3")]
    + [("complete", value) for value in ('"false"', '"true"', "0", "1", "2.5", "[false]", '{"a": 1}')]
    + [("problem", value) for value in ('["a"]', '{"a": 1}', "true", "false", "Infinity", "1" + "0" * 400)]
    + [("text", value) for value in ("null", "5", '["5"]', "true", "NaN")],
)
def test_a_value_that_cannot_be_is_named_by_line_and_key(tmp_path: Path, key: str, value: str) -> None:
    line = json.dumps({k: v for k, v in FINE.items() if k != key})[:-1] + f', "{key}": {value}}}'
    with pytest.raises(UserError, match=r"r.jsonl line 2\b") as caught:
        read(tmp_path / "r.jsonl", json.dumps(FINE) + "\n" + line + "\n")
    said = str(caught.value).removeprefix(str(tmp_path))
    assert key in said or {"problem": "id", "text": "response"}[key] in said or "problem of" in said
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"problem": "a", "te', "line 2 is not JSON"),  # not a run that was stopped: a response would be lost
        ('{"problem": "\\ud835", "text": "5"}', r"line 2: '.ud835' is no problem of the test"),
        (b'{"problem": "a", "text": "\xbd"}\n', "line 2 cannot be read as UTF-8: its byte 27 is 0xbd"),
        ('{"text": "5"}', "line 2 names no problem"),
        ('{"problem": null, "question": ["a"], "text": "5"}', "line 2 names no problem"),
        ('{"problem": "zz", "text": "5"}', "line 2: 'zz' is no problem of the test"),
        ('{"problem": "' + "z" * 100_000 + '", "text": "5"}', "line 2: 'zzz"),
        ('{"problem": "a", "sample": 0, "text": "5"}', "line 2 is sample 0 of problem 'a', as .*line 1 is"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    start = json.dumps(FINE).encode() + b"\n"
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path / "r.jsonl", start + (content.encode() if isinstance(content, str) else content))
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 300


def test_a_question_of_two_problems_says_neither(tmp_path: Path) -> None:
    twins = [Problem("a", "Q", "1"), Problem("b", "Q", "2")]
    path = Path(jsonl(tmp_path / "r.jsonl", {"question": "Q", "text": "1"}))
    with pytest.raises(UserError, match="line 1: two problems ask 'Q'; name the one that is meant by its id"):
        read_responses(path, twins, "the test")


def test_files_without_a_response_are_named(tmp_path: Path) -> None:
    for content in ("", "\n \r\n", "\ufeff"):
        with pytest.raises(UserError, match=r"r.jsonl is empty"):
            read(tmp_path / "r.jsonl", content)
    with pytest.raises(UserError, match="nowhere.jsonl does not exist"):
        read_responses(tmp_path / "nowhere.jsonl", PROBLEMS, "the test")


def test_nothing_is_written_for_a_file_that_is_refused(tmp_path: Path) -> None:
    task = Data("data", test=jsonl(tmp_path / "q.jsonl", {"id": "a", "problem": "Q", "answer": "5"}))
    with pytest.raises(UserError, match="line 2 is not JSON"):
        from_elsewhere(Path(jsonl(tmp_path / "r.jsonl", FINE, '{"problem": "a", "tex')), task, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("text", ["so \ud835 \\boxed{5}", "\udfff \\boxed{5} \ud800"])
def test_a_response_with_half_a_character_is_graded_and_shown(tmp_path: Path, text: str) -> None:
    """Engines that count in 16 bits cut responses in the middle of a character."""
    task = Data("data", test=jsonl(tmp_path / "q.jsonl", {"id": "a", "problem": "Q", "answer": "5"}), grader="number")
    file = Path(jsonl(tmp_path / "r.jsonl", {"problem": "a", "text": text}))
    assert [record.reason for record in from_elsewhere(file, task, tmp_path / "o")] == ["correct"]
    assert read_records(tmp_path / "o" / "records.jsonl")[0].text == text
    page = write_evaluation_page(tmp_path / "o").read_text(encoding="utf-8")
    assert text.encode("utf-8", "backslashreplace").decode() in page
