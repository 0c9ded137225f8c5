import random
import sys
from collections import Counter
from types import ModuleType
from typing import Any, get_args

import pytest

from tiltlab.config.tasks import load_task
from tiltlab.datasets.overlap import normal
from tiltlab.errors import UserError
from tiltlab.tasks.base import notes_of
from tiltlab.tasks.reasoning_gym import FAMILIES, STRIDE, ReasoningGym
from tiltlab.types import Problem, Split

SPLITS: tuple[Split, ...] = get_args(Split)


class Made:
    """As the library makes problems: number i of a data set follows from seed + i, and there are `of` questions."""

    asked: list[tuple[str, int, int]]

    def __init__(self, seed: int, size: int, of: int) -> None:
        self.seed, self.size, self.of = seed, size, of

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = random.Random(self.seed + i).randrange(self.of)
        return {"question": f"What is {number} + 1?", "answer": str(number + 1)}

    def score_answer(self, *_: Any) -> float:
        raise AssertionError("never to be called")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    asked: list[tuple[str, int, int]] = []

    def create_dataset(family: str, *, seed: int, size: int, of: int = 10**12) -> Made:
        if of < 1:
            raise AssertionError("of must be positive")
        asked.append((family, seed, size))
        return Made(seed, size, of)

    fake = ModuleType("reasoning_gym")
    vars(fake)["create_dataset"] = create_dataset
    monkeypatch.setitem(sys.modules, "reasoning_gym", fake)
    return asked


def test_splits_are_made_from_seeds_that_lie_far_apart(library: list[tuple[str, int, int]]) -> None:
    task = ReasoningGym("reasoning_gym", "gcd", train=30, validation=5, test=7, seed=1)
    assert [len(task.problems(split)) for split in SPLITS] == [30, 5, 7]
    seeds = sorted((seed, size) for _, seed, size in library)
    assert len(seeds) == 3
    assert all(b - (a + size) >= STRIDE - 30 for (a, size), (b, _) in zip(seeds, seeds[1:], strict=False))
    library.clear()
    ReasoningGym("reasoning_gym", "gcd", train=30, validation=5, test=7, seed=2).problems("test")
    assert not {seed for _, seed, _ in library} & {seed for seed, _ in seeds}


def test_questions_that_come_again_are_left_out_and_counted(library: Any) -> None:
    task = ReasoningGym("reasoning_gym", "lcm", train=300, validation=20, test=40, settings={"of": 120})
    counts = Counter(normal(p.question) for split in SPLITS for p in task.problems(split))
    assert max(counts.values()) == 1
    assert len(task.problems("train")) + len(task.problems("validation")) + len(task.problems("test")) > 100
    twice, elsewhere = notes_of(task, "train")
    assert "came twice and were left out" in twice
    assert "rows of train stand in another split too" in elsewhere
    with pytest.raises(UserError, match="no question left for its (validation|train) split"):
        ReasoningGym("reasoning_gym", "lcm", settings={"of": 3}).problems("train")


@pytest.mark.parametrize(
    ("answer", "text", "reason"),
    [
        ("12", r"so \boxed{12}", "correct"),
        ("12", r"\boxed{12.0}", "correct"),
        ("12", r"\boxed{13}", "wrong"),
        ("12", "12", "no_answer"),
        ("12", r"\boxed{6+6}", "no_answer"),
        ("True", r"\boxed{true}", "correct"),
        ("True", r"\boxed{\text{True}.}", "correct"),
        ("True", r"\boxed{$True$}", "correct"),
        ("True", r"\boxed{not True}", "wrong"),
        ("True", r"\boxed{}", "no_answer"),
        ("0 1 2", r"\boxed{0  1 2}", "correct"),
        ("0 1 2", r"\boxed{[0, 1, 2]}", "wrong"),
        ("-0x1a", r"\boxed{-0x1A}", "correct"),
        ("6", r"\boxed{__import__('os').getpid()}", "no_answer"),
    ],
)
def test_answers_are_compared_as_numbers_or_text_and_never_run(answer: str, text: str, reason: str) -> None:
    task = ReasoningGym("reasoning_gym", "gcd")
    assert task.grade(Problem("1", "q", answer), text).reason == reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "countdown"}, "family 'countdown' is not offered: its answers are not unique"),
        ({"family": "../gcd"}, "is not offered"),
        ({"train": 0}, "train must be from 1 to 10000000 problems, got 0"),
        ({"test": STRIDE + 1}, "test must be from 1"),
        ({"settings": {"seed": 3}}, "seed and the sizes of splits are keys of the task"),
        ({"settings": {"x": {1}}}, "settings must be plain values"),
        ({"template": "no mark"}, "template has no {question}"),
    ],
)
def test_a_family_that_cannot_be_graded_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReasoningGym(**{"task": "reasoning_gym", "family": "gcd"} | changes)


def test_settings_that_a_family_does_not_have_are_told(library: Any) -> None:
    for settings in ({"nonsense": 1}, {"of": 0}):
        with pytest.raises(UserError, match="family gcd cannot be made with settings"):
            ReasoningGym("reasoning_gym", "gcd", settings=settings).problems("test")


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match="needs the extra `gym`"):
        ReasoningGym("reasoning_gym", "gcd", seed=77).problems("test")


def test_a_recipe_names_a_family() -> None:
    task = load_task("{task: reasoning_gym, family: chain_sum, settings: {min_terms: 3}, name: sums}")
    assert task == ReasoningGym("reasoning_gym", "chain_sum", settings={"min_terms": 3}, name="sums")
    with pytest.raises(UserError, match="family 'sudoku' is not offered"):
        load_task("{task: reasoning_gym, family: sudoku}")


@pytest.mark.parametrize("family", sorted(FAMILIES - {"zebra_puzzles"}))
def test_every_family_accepts_its_own_answers_and_no_others(family: str) -> None:
    pytest.importorskip("reasoning_gym")
    task = ReasoningGym("reasoning_gym", family, train=20, validation=5, test=20)
    answers = {problem.answer for problem in task.problems("test")}
    assert len(answers) > 1
    for problem in task.problems("test"):
        assert problem.answer.strip()
        assert not set(problem.answer) & set("{}\n")
        for answer in answers:
            found = task.grade(problem, f"I think \\boxed{{{answer}}}").reason
            assert (found == "correct") is (answer == problem.answer)


def test_chain_sums_are_what_they_say() -> None:
    pytest.importorskip("reasoning_gym")
    for problem in ReasoningGym("reasoning_gym", "chain_sum", train=1, validation=1, test=50).problems("test"):
        first, *rest = problem.question.partition(":")[2].removesuffix("=").split()
        signed = zip(rest[::2], rest[1::2], strict=True)
        assert int(problem.answer) == int(first) + sum(int(n) * (1 if sign == "+" else -1) for sign, n in signed)
