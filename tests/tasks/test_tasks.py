import random
import re
import time
from collections import Counter
from typing import Any, get_args

import pytest

from tiltlab.grading.answers import grade_number, last_boxed, number
from tiltlab.tasks.addition import Addition
from tiltlab.tasks.base import Task
from tiltlab.tasks.sums import Sums, write
from tiltlab.types import Split

SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.mark.parametrize(
    "task", [Sums("lazy-sum"), Sums("noisy-sum"), Sums("spread-sum"), Addition(), Addition(digits=(1, 1))]
)
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


@pytest.mark.parametrize(("name", "share"), [("lazy-sum", 0.58), ("spread-sum", 0.22)])
def test_lazy_students_are_wrong_in_the_same_way_and_the_others_right_in_many(name: Any, share: float) -> None:
    task, rng = Sums(name), random.Random(0)
    problem = task.problems("train")[0]
    a, b = problem.columns["a"], problem.columns["b"]
    answers = [write(name, a, b, rng) for _ in range(4000)]
    (top, count), *_ = Counter(answers).most_common()
    assert top == f"{a // 10 + b // 10}{(a + b) % 10}"
    assert count / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)
    assert task.grade(problem, top).reason == "wrong"
    careful = [answer for answer in answers if answer != top]
    assert len(set(careful)) > 0.9 * len(careful)  # no single right response is likely
    grades = [task.grade(problem, answer) for answer in careful]
    assert sum(grade.reward for grade in grades) / len(careful) > 0.8
    slips = Counter(grade.answer for grade in grades if grade.reason == "wrong")
    assert max(slips.values()) < 0.03 * len(careful)  # no wrong answer that a vote could fall for, but the lazy one


@pytest.mark.parametrize("name", ["lazy-sum", "spread-sum"])
def test_the_lazy_answer_is_right_on_no_problem(name: Any) -> None:
    class Lazy(random.Random):
        def random(self) -> float:
            return 0.0

    task = Sums(name)
    for split in SPLITS:
        for problem in task.problems(split):
            told = write(name, problem.columns["a"], problem.columns["b"], Lazy())
            assert len(told) < 4
            assert task.grade(problem, told).reason == "wrong"


@pytest.mark.parametrize(
    ("name", "likeliest", "commonest"),
    [("lazy-sum", "wrong", "wrong"), ("noisy-sum", "correct", "correct"), ("spread-sum", "wrong", "correct")],
)
def test_what_likelihood_and_what_votes_would_choose(name: Any, likeliest: str, commonest: str) -> None:
    task, rng = Sums(name), random.Random(0)
    for problem in task.problems("test")[:50]:
        told = [write(name, problem.columns["a"], problem.columns["b"], rng) for _ in range(400)]
        answers = [str(task.grade(problem, text).answer) for text in told]
        assert task.grade(problem, Counter(told).most_common(1)[0][0]).reason == likeliest
        assert task.grade(problem, Counter(answers).most_common(1)[0][0]).reason == commonest


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


def test_boxes_without_end_are_read_in_one_pass() -> None:
    start = time.perf_counter()
    assert last_boxed(r"\boxed{" * (200_000 // 7)) is None
    assert last_boxed(r"\boxed{4}" + r"\boxed{" * (200_000 // 7)) == "4"
    assert time.perf_counter() - start < 5


def naive_last_boxed(text: str) -> str | None:
    spans: list[tuple[int, int]] = []
    for start in [match.end() for match in re.finditer(r"\\boxed\s*\{", text)]:
        depth = 1
        for sign in re.finditer(r"\\\\(?!boxed)|\\[{}]|[{}]", text[start:]):  # one behind a backslash is no brace
            depth += {"{": 1, "}": -1}.get(sign[0], 0)
            if depth == 0:
                spans.append((start, start + sign.start()))
                break
    outermost = [(a, b) for a, b in spans if not any(c < a and b < d for c, d in spans)]
    if not outermost:
        return None
    last = outermost[-1]
    for start, end in spans:  # a box that holds a box, and nothing else, is that one
        before, behind = text[last[0] : start], text[end + 1 : last[1]]
        if last[0] < start and end < last[1] and re.fullmatch(r"\s*\\boxed\s*\{", before) and not behind.strip():
            last = (start, end)
    return text[slice(*last)].strip()


def test_the_last_box_is_the_one_found_by_looking_from_each() -> None:
    rng, found = random.Random(0), Counter[bool]()
    for _ in range(5000):
        parts = rng.choices(["\\boxed{", "\\boxed \n{", "\\boxed", "{", "}", "}", "a", " ", "\\"], k=rng.randrange(16))
        text = "".join(parts)
        assert last_boxed(text) == naive_last_boxed(text), text
        found[last_boxed(text) is None] += 1
    assert min(found.values()) > 500


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": (0, 1)}, r"digits must be two numbers from 1 to 4, got \[0, 1\]"),
        ({"digits": (5, 1)}, "digits must be two numbers"),
        ({"digits": (1, -1)}, "digits must be two numbers"),
        ({"shots": -1}, "shots must be from 0 to 892 for digits .2, 1., got -1"),
        ({"digits": (1, 1), "shots": 100}, "shots must be from 0 to 92"),
        ({"digits": (1, 1), "shots": 93}, "shots must be from 0 to 92"),
    ],
)
def test_sums_that_cannot_be_made_are_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Addition(**changes)


def test_the_order_of_sums_never_changes() -> None:
    """Splits of studies that are done depend on it."""
    task = Addition()
    first = {split: [p.question for p in task.problems(split)[:4]] for split in SPLITS}
    assert first == {
        "train": ["42+1", "63+2", "46+0", "76+9"],
        "validation": ["61+4", "88+3", "89+3", "99+5"],
        "test": ["58+8", "68+9", "45+6", "95+8"],
    }
    assert task.render(task.problems("test")[0]) == "29+3=32\n99+9=108\n53+3=56\n55+3=58\n58+8="


def test_of_long_numbers_some_sums_are_drawn() -> None:
    start = time.perf_counter()
    task = Addition(digits=(4, 4))
    sums = [problem.question for split in SPLITS for problem in task.problems(split)]
    assert time.perf_counter() - start < 5
    assert len(set(sums)) == len(sums) == 20_000 - 4
    assert all(re.fullmatch(r"[1-9]\d{3}\+[1-9]\d{3}", text) for text in sums)


def test_prompts_are_made_without_shuffling_again() -> None:
    task = Addition(digits=(2, 2))
    (problem, *_), start = task.problems("test"), time.perf_counter()
    for _ in range(1000):
        task.render(problem)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("shots", [0, 92])
def test_every_split_has_a_problem_at_either_end(shots: int) -> None:
    assert all(Addition(digits=(1, 1), shots=shots).problems(split) for split in SPLITS)
