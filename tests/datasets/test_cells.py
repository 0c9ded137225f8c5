"""What cells say: as text, as a chat, or refused with file and row."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.files import jsonl, written
from tiltlab.config.tasks import load_task
from tiltlab.errors import UserError
from tiltlab.tasks.base import notes_of
from tiltlab.tasks.dataset import Data
from tiltlab.types import Problem

FINE = {"problem": "fine", "answer": "1"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+3?"},
]


def problems(path: str, **changes: Any) -> list[Problem]:
    return list(Data("data", test=path, **changes).problems("test"))


def refused(path: str, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        problems(path, **changes)
    said = str(caught.value).replace(path, Path(path).name)
    assert "\n" not in said
    assert len(said) < 400
    return said


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (decimal.Decimal("12.50"), "12.50"),
        (decimal.Decimal("-0.001"), "-0.001"),
        (decimal.Decimal("12345678901234567890.5"), "12345678901234567890.5"),
        (1e-5, "0.00001"),
        (1e22, "10000000000000000000000"),
        (0.1, "0.1"),
        (18.0, "18.0"),
        (18, "18"),
        ([decimal.Decimal("1.5"), decimal.Decimal("2")], "1.5, 2.0"),
    ],
)
def test_numbers_of_all_kinds_are_golds(tmp_path: Path, value: Any, gold: str) -> None:
    (problem,) = problems(written(tmp_path / "d.parquet", [{"problem": "q", "answer": value}]))
    assert problem.answer == gold


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            datetime.date(2024, 5, 1),
            "column 'answer' holds a date, datetime.date(2024, 5, 1); it needs text or a number",
        ),
        (datetime.datetime(2024, 5, 1), "holds a datetime"),
        (datetime.timedelta(3), "holds a timedelta"),
        (b"18", "holds a bytes"),
        (True, "holds a bool"),
        ({"ground_truth": "18"}, "holds a dict"),
        ([["18"]], "holds a list"),
        ([b"x" * 100_000], "holds a list"),
        (float("nan"), "is missing or empty"),
        (float("inf"), "holds a float"),
    ],
)
def test_a_gold_of_another_kind_is_named(tmp_path: Path, value: Any, said: str) -> None:
    message = refused(written(tmp_path / "d.parquet", [{"problem": "q", "answer": value}]))
    assert message.startswith("d.parquet row 1 has no answer: ")
    assert said in message
    if not isinstance(value, list | dict | float):
        asked = refused(written(tmp_path / "q.parquet", [{"problem": value, "answer": "1"}]))
        assert asked.startswith("q.parquet row 1 has no question: column 'problem' holds a")


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize(
    "gold", ["", " ", "\t\u00a0", "\u200b", "$$", "$ $", "\\boxed{}", "$\\boxed{ }$.", "**", "####", "."]
)
def test_a_gold_of_nothing_but_marks_is_refused_at_load(tmp_path: Path, kind: str, gold: str) -> None:
    path = written(tmp_path / f"d{kind}", [FINE, {"problem": "q", "answer": gold}])
    assert f"{'line' if kind == '.jsonl' else 'row'} 2 has no answer" in refused(path)


@pytest.mark.parametrize("gold", ["Answer: 150", "#### 18", "**18**", "18,", "$18$", "-", "\\emptyset", "0", "\u221e"])
def test_a_gold_with_something_in_it_is_kept_as_it_is(tmp_path: Path, gold: str) -> None:
    assert problems(jsonl(tmp_path / "d.jsonl", {"problem": "q", "answer": gold}))[0].answer == gold


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"\n"])
def test_marks_blank_lines_and_line_ends_are_no_rows(tmp_path: Path, kind: str, end: str, start: bytes) -> None:
    rows = [{"problem": f"caf\u00e9 {i}", "answer": str(i)} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = {
        ".jsonl": "\r\n \r\n".join(lines),
        ".json": "[\r\n" + ",\r\n\r\n".join(lines) + "]",
        ".csv": "problem,answer\r\n\r\n" + "\r\n,\r\n \r\n".join(",".join(row.values()) for row in rows),
    }[kind]
    path = tmp_path / f"d{kind}"
    path.write_bytes(start + (text + end).encode())
    assert [(p.question, p.answer) for p in problems(str(path))] == [(f"caf\u00e9 {i}", str(i)) for i in range(3)]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "mac-roman"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path, kind: str, encoding: str) -> None:
    text = {".csv": "problem,answer\nHow much?,\u00bd\n".replace("\u00bd", "\u00f7")}.get(
        kind, '{"problem": "q",\n "answer": "\u00f7"}'
    )
    path = tmp_path / f"d{kind}"
    path.write_bytes(text.encode(encoding))
    line = 1 if encoding == "utf-16" else 2
    assert f"d{kind} line {line} cannot be read as UTF-8: its byte " in refused(str(path))


def test_ids_are_text_or_numbers(tmp_path: Path) -> None:
    rows = [{"id": i, "problem": f"q{i}", "answer": "1"} for i in (60, 61.0, "a", 7.5, "", None)]
    path = jsonl(tmp_path / "d.jsonl", *rows, '{"id": NaN, "problem": "q", "answer": "1"}')
    assert [p.id for p in problems(path)] == ["60", "61", "a", "7.5", *(f"{path} line {i}" for i in (5, 6, 7))]


@pytest.mark.parametrize("value", ["[1]", "[]", '{"a": 1}', "true", "false", "Infinity", '["' + "x" * 100_000 + '"]'])
def test_ids_of_another_kind_are_named(tmp_path: Path, value: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", FINE, f'{{"id": {value}, "problem": "q", "answer": "1"}}')
    assert "line 2, column 'id', has the id " in refused(path)


@pytest.mark.parametrize("value", ["NaN", "null", '" \\n"', "[]"])
def test_a_question_that_is_empty_is_missing(tmp_path: Path, value: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", FINE, f'{{"problem": {value}, "answer": "1"}}')
    assert 'line 2 has no question: column "problem" is missing or empty' in refused(path)


@pytest.mark.parametrize("value", ["Infinity", "true", '{"role": "user", "content": "q"}'])
def test_a_question_that_is_no_text_is_named(tmp_path: Path, value: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", FINE, f'{{"problem": {value}, "answer": "1"}}')
    assert "line 2 has no question: column 'problem' holds a" in refused(path)


def test_a_question_that_is_a_number_is_its_digits(tmp_path: Path) -> None:
    rows = [{"problem": number, "answer": "1"} for number in (12, 1e-5)]
    assert [p.question for p in problems(jsonl(tmp_path / "d.jsonl", *rows))] == ["12", "0.00001"]


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet"])
def test_a_question_that_is_a_chat_is_sent_as_it_stands(tmp_path: Path, kind: str) -> None:
    named = [*CHAT, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And {3}+4?", "name": "Ann"}]
    rows = [{"prompt": chat, "answer": "5"} for chat in (CHAT, named)]
    path = written(tmp_path / f"d{kind}", rows)
    task = Data("data", test=path, columns={"question": "prompt"}, template="Box it. {question}")
    first, second = task.problems("test")
    assert task.render(first) == tuple(CHAT)  # type: ignore[comparison-overlap]
    assert task.render(second) == tuple(named)  # type: ignore[comparison-overlap]
    assert first.question == "What is 2+3?"
    assert second.question == "What is 2+3?\n\n5\n\nAnd {3}+4?"
    assert first.columns == {}
    assert notes_of(task, "test") == [f"{path}: 2 questions are chats, sent as given; no template is put around"]


def test_a_chat_and_a_text_that_ask_the_same_are_one_question(tmp_path: Path) -> None:
    test = jsonl(tmp_path / "test.jsonl", {"problem": "what is 2+3", "answer": "5"})
    train = jsonl(
        tmp_path / "train.jsonl", {"problem": CHAT, "answer": "5"}, *({"problem": q, "answer": "1"} for q in "xy")
    )
    assert [p.question for p in Data("data", train, test, validation=1).problems("train")] == ["y"]


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        (["What is 2+3?"], "message 1 is 'What is 2+3?', not an object"),
        ([None], "message 1 is None"),
        ([CHAT], "message 1 is ["),
        ([{"from": "human", "value": "q"}], "message 1 has the role None; it must be one of system, "),
        ([{"role": "human", "content": "q"}], "message 1 has the role 'human'"),
        ([{"role": ["user"], "content": "q"}], "message 1 has the role ['user']"),
        ([*CHAT[:1], {"role": "user"}], "message 2 is {'role': 'user'}; its content must be there"),
        ([{"role": "user", "content": None}], "its content must be there"),
        ([{"role": "user", "content": 5}], "and be text"),
        ([{"role": "user", "content": [{"type": "text", "text": "q"}]}], "and be text"),
        ([{"role": "user", "content": "q", "tool_calls": [1]}], "and be text"),
        ([*CHAT, {"role": "assistant", "content": "It is 5."}], "the last message must be the user's"),
        (CHAT[:1], "the last message must be the user's"),
        ([{"role": "user", "content": " "}], "the last message must be the user's, with the question"),
        ([{"role": "user", "content": "q" * 100_000, "x": 1}], "message 1 is {"),
    ],
)
def test_a_chat_that_asks_nothing_is_named(tmp_path: Path, chat: Any, said: str) -> None:
    message = refused(jsonl(tmp_path / "d.jsonl", FINE, {"problem": chat, "answer": "1"}))
    assert message.startswith("d.jsonl line 2, column 'problem': ")
    assert said in message


def test_a_chat_is_not_for_a_task_that_sends_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"problem": CHAT, "answer": "1"})
    assert "line 1: column 'problem' holds a chat, and this task sends text; set `prompt: chat`" in refused(
        path, prompt="plain"
    )


def test_named_sets_leave_out_rows_without_a_gold_and_refuse_none_for_its_kind(tmp_path: Path) -> None:
    rows = [{"problem": f"q{i}", "answer": gold} for i, gold in enumerate(("1", "", "$$"))]
    task = load_task(f"{{task: math500, test: {jsonl(tmp_path / 'd.jsonl', *rows)}}}")
    assert [p.answer for p in task.problems("test")] == ["1"]
    assert "2 rows without a gold answer were left out" in " ".join(notes_of(task, "test"))
