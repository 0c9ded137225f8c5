import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.tasks.files import jsonl, written
from tiltlab.config.tasks import load_task
from tiltlab.datasets.columns import LoadedProblems, Reading, read_problems
from tiltlab.datasets.overlap import apart, normal
from tiltlab.errors import UserError
from tiltlab.tasks.base import grade_all, notes_of
from tiltlab.tasks.dataset import Data
from tiltlab.types import Grade, Problem, Rollout

FINE = {"problem": "fine", "answer": "1"}


def read(path: str, **changes: Any) -> LoadedProblems:
    return read_problems((path,), Reading(**changes))


def test_splits_are_disjoint_after_normalising(tmp_path: Path) -> None:
    test = jsonl(tmp_path / "test.jsonl", {"id": "t0", "problem": "How many?", "answer": "3"})
    train = jsonl(
        tmp_path / "train.jsonl",
        {"problem": "how  MANY", "answer": "3"},
        *({"problem": f"Question {i}", "answer": str(i), "level": i} for i in range(6)),
        {"problem": "question 0!", "answer": "0", "id": "twin"},
    )
    task = Data("data", train, test, validation=2)
    assert [p.question for p in task.problems("validation")] == ["Question 0", "Question 1"]
    assert [p.question for p in task.problems("train")] == [f"Question {i}" for i in range(2, 6)]
    assert task.problems("train")[0].columns == {"level": 2}
    assert task.problems("test")[0].id == "t0"
    assert notes_of(task, "train") == [
        f"1 row of train stands in test too, and was left out: {train} line 1",
        "1 row of train stands in validation too, and was left out: twin",
    ]
    assert notes_of(task, "test") == notes_of(task, "validation") == []


def test_the_prompt_is_the_template_filled_in() -> None:
    problem = Problem("1", "How {many}?", "3")
    (message,) = Data("data", test="t.jsonl").render(problem)
    assert message == {  # type: ignore[comparison-overlap]
        "role": "user",
        "content": "Think step by step, and put the final answer inside \\boxed{}.\n\nHow {many}?",
    }
    plain = Data("data", test="t.jsonl", prompt="plain", template="Q: {question} A:")
    assert plain.render(problem) == "Q: How {many}? A:"


def test_a_validation_split_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    def questions(name: str, *texts: str) -> str:
        return jsonl(tmp_path / f"{name}.jsonl", *({"id": t, "problem": t, "answer": "1"} for t in texts))

    task = Data(
        "data", questions("train", "a", "b", "c"), questions("test", "d", "e"), validation=questions("s", "b", "e")
    )
    assert [p.question for p in task.problems("validation")] == ["b"]
    assert [p.question for p in task.problems("train")] == ["a", "c"]
    assert notes_of(task, "validation") == ["1 row of validation stands in test too, and was left out: e"]
    assert notes_of(task, "train") == ["1 row of train stands in validation too, and was left out: b"]


def test_notes_show_a_few_ids() -> None:
    rows = [Problem(str(i), f"q{i}", "1") for i in range(9)]
    kept, notes = apart(rows, "train", rows[:5], "test")
    assert kept == rows[5:]
    assert notes == ["5 rows of train stand in test too, and were left out: 0, 1, 2, ..."]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    test = jsonl(tmp_path / "test.jsonl", FINE)
    task = Data("data", "nowhere.jsonl", test)
    assert len(task.problems("test")) == 1
    with pytest.raises(UserError, match="data file nowhere.jsonl does not exist"):
        task.problems("train")


@pytest.mark.parametrize(
    ("row", "reading", "message"),
    [
        ({"problem": "q"}, {}, r'line 2 has no answer: column "answer" is missing or empty \(its columns: problem\)'),
        ({"problem": "q", "answer": None}, {}, "line 2 has no answer"),
        ({"problem": "q", "answer": " "}, {}, "line 2 has no answer"),
        ({"problem": "q", "answer": {"a": 1}}, {}, "line 2 has no answer"),
        ({"problem": "q", "answer": True}, {}, "line 2 has no answer"),
        ({"problem": "q", "answer": ["1", None]}, {}, "line 2 has no answer"),
        ('{"problem": "q", "answer": NaN}', {}, "line 2 has no answer"),
        ('{"problem": "q", "answer": -Infinity}', {}, "line 2 has no answer"),
        ({"answer": "3"}, {}, 'line 2 has no question: column "problem"'),
        ({"answer": "3", "problem": ""}, {}, "line 2 has no question"),
        ({"problem": "q", "answer": "x+1"}, {"numbers": True}, "line 2: answer 'x.1' is not a number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: object, reading: dict[str, Any], message: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", FINE, row)
    with pytest.raises(UserError, match=message):
        read(path, **reading)


def test_answers_are_expressions_numbers_or_lists_of_them(tmp_path: Path) -> None:
    answers = ["x + 1", 18, 2.5, 10**400, ["1", 2]]
    path = jsonl(tmp_path / "d.jsonl", *({"problem": "q", "answer": answer} for answer in answers))
    assert [p.answer for p in read(path).problems] == ["x + 1", "18", "2.5", str(10**400), "1, 2"]


def test_empty_files_are_named(tmp_path: Path) -> None:
    for name in ("empty.jsonl", "empty.csv", "empty.json"):
        with pytest.raises(UserError, match=f"{name} is empty"):
            read(jsonl(tmp_path / name))
    one = jsonl(tmp_path / "one.jsonl", FINE)
    with pytest.raises(UserError, match="no row to train on"):
        Data("data", one, one).problems("train")
    with pytest.raises(UserError, match="no row to train on"):
        Data("data", one, jsonl(tmp_path / "two.jsonl", {"problem": "other", "answer": "1"})).problems("train")


def test_a_row_without_an_id_is_called_by_its_line(tmp_path: Path) -> None:
    some = [{"id": i, "problem": "q", "answer": "1"} for i in (None, "a", 0, None)]
    path = jsonl(tmp_path / "d.jsonl", *some, {"problem": "q", "answer": "1"})
    ids = [problem.id for problem in read(path).problems]
    assert ids == [f"{path} line 1", "a", "0", f"{path} line 4", f"{path} line 5"]


def test_two_rows_with_one_id_are_both_named(tmp_path: Path) -> None:
    some = [{"id": i, "problem": f"q{i}", "answer": "1"} for i in ("a", 7, "b", "7")]
    path = jsonl(tmp_path / "d.jsonl", *some)
    with pytest.raises(UserError, match=f"{path} line 4 has the id '7', as {path} line 2 has"):
        read(path)
    train = jsonl(tmp_path / "train.jsonl", *({"id": i, "problem": f"t{i}", "answer": "1"} for i in "abc"))
    test = jsonl(tmp_path / "test.jsonl", {"id": "a", "problem": "q", "answer": "1"})
    assert len(Data("data", train, test, validation=1).problems("train")) == 2  # ids are a file's own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": r"In \boxed{}: {question}"}, r"template cannot be filled in .*double all other braces"),
        ({"template": "{question} {"}, "template cannot be filled in"),
        ({"template": "{problem}"}, "template cannot be filled in .KeyError: 'problem'"),
        ({"template": "{question.text}"}, "template cannot be filled in"),
        ({"template": "{question!x}"}, "template cannot be filled in"),
        ({"template": "{{question}}"}, "template has no {question}"),
        ({"template": "Think."}, "template has no {question}"),
        ({"template": "{question.__class__}"}, "template has no {question}"),
        ({"columns": {"question": "q", "gold": "a"}}, r"columns has the keys .*, got \['question', 'gold'\]"),
        ({"validation": 0}, "validation must be at least 1"),
        ({"validation": -3}, "validation must be at least 1"),
        ({"train": None, "test": None}, "data needs train, test or both"),
    ],
)
def test_data_that_cannot_be_put_to_a_model_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data(**{"task": "data", "train": "train.jsonl", "test": "test.jsonl"} | changes)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("How many?", " how  MANY", True),
        ('He said: "Stop, now!"', "he said stop now", True),
        ("Don't; it's 5.", "dont its 5", True),
        ("\uff11\uff12 caf\u00e9s", "12 cafe\u0301s", True),
        ("If $f(6)-f(2)=12$. Find", "If $f(6) - f(2) = 12.$ Find", True),
        ("$2x^{2}+3x$", "$2x^2 + 3x$", True),
        ("x^{12}", "x^12", False),
        ("1 2+3", "12-3", False),
        ("1 2", "12", False),
        ("2+3", "2-3", False),
        ("2+3", "23", False),
        ("x < 5", "x > 5", False),
        ("is 1.5 more", "is 15 more", False),
        ("at 1:15", "at 11:5", False),
        ("3, 5", "3 5", True),
    ],
)
def test_questions_are_alike_but_for_case_spaces_and_sentence_marks(one: str, other: str, alike: bool) -> None:
    assert (normal(one) == normal(other)) is alike


def test_columns_of_ones_own_are_named(tmp_path: Path) -> None:
    items = [{"q": "How many?", "final": "3", "key": "a", "answer": "long text"}]
    for kind in (".jsonl", ".parquet", ".csv", ".json"):
        path = written(tmp_path / f"d{kind}", items)
        (problem,) = Data("data", test=path, columns={"question": "q", "answer": "final", "id": "key"}).problems("test")
        assert (problem.id, problem.question, problem.answer) == ("a", "How many?", "3")
        assert problem.columns == {"key": "a", "answer": "long text"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nope", "test: 'nope' is no file that can be read .*no hub id .owner/name. and no set .math, math500"),
        ("d.txt", "is no file that can be read"),
        ("", "is no file that can be read"),
        ("a\0b", "is no file that can be read"),
        ("/abs/olute/folder", "is no file that can be read"),
    ],
)
def test_a_source_that_is_nothing_is_told(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Data("data", test=given).problems("test")


def test_a_split_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", FINE, {"problem": "more", "answer": "1"})
    with pytest.raises(UserError, match="task data has no train split; name one: `train: FILE`"):
        Data("data", test=path).problems("train")
    with pytest.raises(UserError, match="task mine has no test split"):
        Data("data", train=path, name="mine").problems("test")
    assert len(Data("data", train=path, validation=1).problems("train")) == 1


def test_options_of_the_command_line_make_a_task(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", [{"question": "How many?", "final": "3"}])
    for name in (None, "data", "gsm8k", "{task: math500, grader: number}"):
        task = load_task(name, path, "problem=question, answer=final")
        (problem,) = task.problems("test")
        assert (problem.question, problem.answer) == ("How many?", "3")
    assert task.grade(problem, r"\boxed{3.0}").reason == "correct"
    assert load_task("lazy-sum").name == "lazy-sum"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("data", "d.csv", "problem"), "--map problem: write it as problem=COLUMN,answer=COLUMN"),
        (("data", "d.csv", "problem=a,question=b"), "each once"),
        (("data", "d.csv", "gold=a"), "--map gold=a: write it as"),
        (("data", "d.csv", "answer="), "write it as"),
        (("nonsense", None, None), "--task nonsense: .*unknown task 'nonsense'"),
        (("lazy-sum", "d.csv", None), "--task lazy-sum: .*test is no key"),
        ((None, None, None), "--task data: .*needs train, test or both"),
        (("{task: data, test: {id: 3}}", None, None), r"test.Hub.hub is missing"),
        (("[", None, None), "--task is not YAML"),
    ],
)
def test_options_that_make_no_task_are_told_in_one_line(options: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_task(*options)
    assert "\n" not in str(caught.value)


def test_numbers_are_compared_as_numbers() -> None:
    task = Data("data", test="t.jsonl", grader="number")
    problem = Problem("1", "q", "1,234")
    texts = [r"\boxed{1234.0}", r"\boxed{1235}", "1234"]
    reasons = ["correct", "wrong", "no_answer"]
    assert [task.grade(problem, text).reason for text in texts] == reasons
    assert [grade.reason for grade in task.grade_batch([problem] * 3, texts)] == reasons


@pytest.mark.parametrize(("grader", "mode"), [("maths", "strict"), ("maths_lenient", "lenient")])
def test_a_whole_batch_goes_to_the_verifier_at_once(monkeypatch: pytest.MonkeyPatch, grader: Any, mode: str) -> None:
    calls: list[tuple[Any, str]] = []

    def grade_maths(text: str, gold: str, mode: str) -> Grade:
        return grade_many([(text, gold)], mode)[0]

    def grade_many(pairs: Sequence[tuple[str, str]], mode: str) -> list[Grade]:
        calls.append((list(pairs), mode))
        return [Grade(float(text == gold), text, "correct" if text == gold else "wrong") for text, gold in pairs]

    grading = ModuleType("tiltlab.grading.maths")
    vars(grading).update(grade_maths=grade_maths, grade_many=grade_many)
    monkeypatch.setitem(sys.modules, "tiltlab.grading.maths", grading)
    task = Data("data", test="t.jsonl", grader=grader)
    problems = [Problem("1", "q", "a"), Problem("2", "q", "b"), Problem("3", "q", "c")]
    rollouts = [[Rollout((), text, True, ()) for text in texts] for texts in (("a", "b"), (), ("c", "c", "a"))]
    grades = grade_all(task, problems, rollouts)
    assert [[grade.reward for grade in group] for group in grades] == [[1, 0], [], [1, 1, 0]]
    assert calls == [([("a", "a"), ("b", "a"), ("c", "c"), ("c", "c"), ("a", "c")], mode)]
    assert task.grade(problems[1], "b").reason == "correct"
