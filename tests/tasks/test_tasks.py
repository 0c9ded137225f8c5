import json
import random
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from tiltlab.errors import UserError
from tiltlab.tasks.addition import Addition
from tiltlab.tasks.answers import grade_number, last_boxed, number
from tiltlab.tasks.base import Split, Task
from tiltlab.tasks.data import Data, read_problems
from tiltlab.tasks.sums import Sums, write

SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.mark.parametrize("task", [Sums("lazy-sum"), Sums("noisy-sum"), Addition(), Addition(digits=(1, 1))])
def test_splits_share_no_problem_and_golds_are_accepted(task: Task) -> None:
    seen = Counter(problem.question for split in SPLITS for problem in task.problems(split))
    assert max(seen.values()) == 1
    for split in SPLITS:
        for problem in task.problems(split)[:50]:
            assert task.grade(problem, problem.answer).reason == "correct"
            assert task.grade(problem, problem.answer + "1").reason == "wrong"
            assert task.grade(problem, "").reason == "no_answer"


def test_worked_examples_are_no_problems() -> None:
    task = Addition(shots=4)
    shown = {line.split("=")[0] for line in task.render(task.problems("test")[0]).split("\n")[:4]}
    assert len(shown) == 4
    assert not shown & {problem.question for split in SPLITS for problem in task.problems(split)}


def test_lazy_students_are_most_and_always_wrong_in_the_same_way() -> None:
    task, rng = Sums("lazy-sum"), random.Random(0)
    problem = task.problems("train")[0]
    a, b = problem.columns["a"], problem.columns["b"]
    answers = [write("lazy-sum", a, b, rng) for _ in range(4000)]
    (top, count), *_ = Counter(answers).most_common()
    assert top == f"{a // 10 + b // 10}{(a + b) % 10}"
    assert count / 4000 == pytest.approx(0.58, abs=4 * (0.58 * 0.42 / 4000) ** 0.5)
    assert task.grade(problem, top).reason == "wrong"
    careful = [answer for answer in answers if answer != top]
    assert len(set(careful)) > 0.9 * len(careful)  # no single right response is likely
    assert sum(task.grade(problem, answer).reward for answer in careful) / len(careful) > 0.8


def test_noisy_students_have_one_wording_and_the_likeliest_answer_is_right() -> None:
    task, rng = Sums("noisy-sum"), random.Random(0)
    problem = task.problems("train")[0]
    answers = [write("noisy-sum", problem.columns["a"], problem.columns["b"], rng) for _ in range(4000)]
    (top, count), *_ = Counter(answers).most_common()
    assert task.grade(problem, top).reason == "correct"
    assert count / 4000 == pytest.approx(0.8**3, abs=4 * (0.512 * 0.488 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("so 132", "correct"),
        ("132 ", "correct"),
        ("0132", "correct"),
        ("132, or was it 7", "wrong"),
        ("so 1320", "wrong"),
        ("about 132 or so", "no_answer"),
        ("9" * 5000, "wrong"),
        ("٣", "no_answer"),
    ],
)
def test_sums_read_the_number_that_a_response_ends_with(text: str, reason: str) -> None:
    task = Sums("lazy-sum")
    problem = next(p for p in task.problems("train") if p.answer == "132")
    assert task.grade(problem, text).reason == reason


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12}", "12"),
        (r"\boxed{3} no, \boxed{ 4 }", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{7} and then \boxed{8", "7"),
        (r"\boxed{" * 5000, None),
        ("12", None),
    ],
)
def test_the_last_complete_box_counts(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "gold", "reason"),
    [
        (r"\boxed{1,234}", "1234", "correct"),
        (r"\boxed{\$18}", "18", "correct"),
        (r"\boxed{18.00}", "18", "correct"),
        (r"\boxed{18.}", "18", "correct"),
        (r"\boxed{-3}", "3", "wrong"),
        (r"\boxed{7=8}", "8", "no_answer"),
        (r"\boxed{9^{9^{9^9}}}", "9", "no_answer"),
        (r"\boxed{" + "9" * 100_000 + "}", "9", "no_answer"),
        ("there are 12 apples and 7 pears, I do not know", "7", "no_answer"),
    ],
)
def test_boxed_numbers_are_compared_as_numbers(text: str, gold: str, reason: str) -> None:
    assert grade_number(text, gold, "boxed").reason == reason


@pytest.mark.parametrize("text", ["", ".", "1e5", "1,2", "one", "1 2", "--1", "0x10", "inf", "nan"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert number(text) is None


def rows(path: Path, *items: object) -> str:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return str(path)


def test_data_splits_are_disjoint_after_normalising(tmp_path: Path) -> None:
    test = rows(tmp_path / "test.jsonl", {"id": "t0", "problem": "How many?", "answer": "3"})
    train = rows(
        tmp_path / "train.jsonl",
        {"problem": "how  MANY", "answer": "3"},
        *({"problem": f"Question {i}", "answer": str(i), "level": i} for i in range(6)),
        {"problem": "question 0!", "answer": "0"},
    )
    task = Data("data", train, test, select=2)
    assert [p.question for p in task.problems("select")] == ["Question 0", "Question 1"]
    assert [p.question for p in task.problems("train")] == [f"Question {i}" for i in range(2, 6)]
    assert task.problems("train")[0].columns == {"level": 2}
    assert task.problems("test")[0].id == "t0"
    assert task.render(task.problems("test")[0])[0]["content"].endswith("How many?")  # type: ignore[index]
    assert Data("data", train, test, prompt="plain", template="Q: {question} A:").render(task.problems("test")[0]) == (
        "Q: How many? A:"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 holds a list"),
        ({"problem": "q"}, 'line 2 has no answer: column "answer" is missing'),
        ({"problem": "q", "answer": None}, "line 2 has no answer"),
        ({"answer": "3"}, "line 2 has no question"),
        ({"problem": "q", "answer": "x+1"}, "line 2: answer 'x.1' is not a number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = rows(tmp_path / "d.jsonl", {"problem": "fine", "answer": "1"}, line)
    with pytest.raises(UserError, match=message):
        read_problems(path, "problem", "answer")


def test_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        read_problems(rows(tmp_path / "empty.jsonl"), "problem", "answer")
    with pytest.raises(UserError, match="does not exist"):
        read_problems(str(tmp_path / "nowhere.jsonl"), "problem", "answer")
    with pytest.raises(UserError, match="no row to train on"):
        one = rows(tmp_path / "one.jsonl", {"problem": "q", "answer": "1"})
        Data("data", one, one).problems("train")
