"""Rewards of the user's own: what they are shown, what they may return, and what they cannot break."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rewards_for_tests import GARBAGE
from tiltlab.errors import UserError
from tiltlab.rewards.functions import Reward, load_reward, reward_all, try_reward
from tiltlab.rewards.worker import values_of
from tiltlab.system.guarded_calls import Failed
from tiltlab.tasks.base import grade_all, try_on_gold
from tiltlab.tasks.sums import Sums
from tiltlab.types import Problem, Rollout

TASK = Sums("lazy-sum")
PROBLEMS = TASK.problems("train")[:2]


def named(*names: str, deadline: float = 10.0) -> Reward:
    return load_reward({f"tests.rewards_for_tests:{name}": 1.0 for name in names}, deadline)


def graded(reward: Reward | None) -> Any:
    rollouts = [[Rollout((1,), f"so {p.answer}", True, ()), Rollout((1,), "no", True, ())] for p in PROBLEMS]
    return grade_all(TASK, PROBLEMS, rollouts, reward)


def values(reward: Reward, texts: list[str], group: int = 2) -> list[float | Failed]:
    problems = [Problem(str(i // group), "?", "1") for i in range(len(texts))]
    return reward_all(reward, ["?"] * len(texts), problems, texts)


def test_a_reward_of_ones_own_sees_what_trl_would_show_it() -> None:
    grades = graded(named("seen"))
    first = PROBLEMS[0]
    expected = len(f"so {first.answer}") + first.columns["a"] + float(first.answer) / 1000
    assert grades[0][0].reward == pytest.approx(expected)
    assert [grade.reason for grade in grades[0]] == [
        "correct",
        "no_answer",
    ]  # whether it is right stays the task's word


def test_none_takes_the_reward_and_leaves_the_answer_to_the_task() -> None:
    """Else a reward that abstains on wrong answers would raise accuracy."""
    grades = graded(named("abstains_on_the_first"))
    own = graded(None)
    assert all(math.isnan(grade.reward) for grade in grades[0])
    assert [(g.answer, g.reason) for g in grades[0]] == [(g.answer, g.reason) for g in own[0]]
    assert [g.reason for g in grades[0]] == ["correct", "no_answer"]
    assert [g.reward for g in grades[1]] == [1.0, 2.0]


def test_several_rewards_are_a_weighted_sum() -> None:
    own = "tests.rewards_for_tests:"
    reward = load_reward({f"{own}shortness": 2.0, f"{own}abstains_on_the_first": -1.0})
    first, second, third, fourth = values(reward, ["a" * 10] * 4)
    assert math.isnan(first)  # ungraded by one is ungraded
    assert math.isnan(second)
    assert [third, fourth] == pytest.approx([-3.0, -4.0])


def test_scalars_of_any_library_are_numbers() -> None:
    found = [grade.reward for group in graded(named("scalars")) for grade in group]
    assert found == [0.5, 2.0, 1.0, 0.0]
    assert all(type(reward) is float for reward in found)
    assert [g.reward for g in graded(named("array"))[1]] == [2.0, 3.0]


def test_scalars_of_torch_are_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = [torch.tensor(2.0, requires_grad=True), torch.tensor([1.0])]
    monkeypatch.setattr("tests.rewards_for_tests.array", lambda **_: returned)
    number, failed = values_of("tests.rewards_for_tests:array", {"id": ["1", "2"]})  # in this process
    assert number == 2.0
    assert isinstance(failed, Failed)
    assert failed.said.startswith("returned tensor([1.]) for problem 2")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("one", "returned 1 values for 4 responses"),
        ("five", "returned 5 values"),
        ("nan", "returned nan for problem"),
        ("inf", "returned inf"),
        ("text", "returned '1'"),
        ("list", r"returned \[1.0\] for problem"),
        ("mapping", "returned {'reward': 1.0} for problem"),
        ("bytes", "returned b'1' for problem"),
        ("complex", "returned 1j for problem"),
        ("beyond floats", "returned 1000000000"),
        ("numpy nan", "returned nan"),
        ("array", "returned array"),
        ("unspeakable", "returned a Unspeakable that raised RuntimeError: no words for problem"),
        ("nothing", "returned a NoneType; it must return a list"),
        ("number", "returned a float; it must return a list"),
        ("string", "returned a str; it must return a list"),
        ("dict", "returned a dict; it must return a list"),
    ],
)
def test_a_reward_that_misbehaves_when_it_is_tried_is_named_in_one_line(kind: str, message: str) -> None:
    texts = [kind, "", "", ""]
    with pytest.raises(UserError, match=f"reward garbage {message}") as caught:
        try_reward(named("garbage"), ["?"] * 4, [PROBLEMS[0]] * 4, texts)
    assert "\n" not in str(caught.value)
    assert kind in GARBAGE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("takes_no_columns", "raised TypeError: .*unexpected keyword"),
        ("always_nan", "returned nan"),
        ("sleeps_for_ever_on_all", "gave no answer within 1 s; if it needs longer, raise train.reward_deadline"),
        ("dies_on_all", r"killed its process \(exit code -9\)"),
    ],
)
def test_a_reward_that_fails_on_gold_answers_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"reward {name} {message}"):
        try_on_gold(named(name, deadline=1.0), TASK, "train")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("sleep", "timeout"),
        ("segfault", "error"),
        ("exit", "error"),
        ("kill", "error"),
        ("raise", "error"),
        ("garbage", "error"),
        ("memory", "error"),
    ],
)
def test_a_response_that_breaks_a_reward_costs_itself_only(trouble: str, reason: str) -> None:
    texts = ["fine"] * 70
    texts[40] = trouble
    start = time.perf_counter()
    found = values(named("mischief", deadline=2.0), texts)
    # The call of the guilty one, then that response alone; the rest is starting workers.
    assert time.perf_counter() - start < 2 + 1 + 5
    failed = found.pop(40)
    assert isinstance(failed, Failed)
    assert failed.reason == reason
    assert found == [1.0] * 69


def test_what_failed_is_ungraded_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rollouts = [[Rollout((1,), text, True, ()) for text in ("raise", PROBLEMS[0].answer, "garbage", "raise")]]
    (grades,) = grade_all(TASK, PROBLEMS[:1], rollouts, named("mischief"))
    assert [grade.reason for grade in grades] == ["error", "correct", "error", "error"]
    assert [math.isnan(grade.reward) for grade in grades] == [True, False, True, True]
    (said,) = [record.getMessage() for record in caplog.records]  # once, not for every response
    assert said.startswith("reward mischief raised ValueError: a response that I do not like; responses that it fails")


def test_the_responses_to_a_prompt_come_together() -> None:
    assert values(named("counts"), ["x"] * 40, group=40) == [40.0] * 40
    assert values(named("counts"), ["x"] * 36, group=12) == [24.0] * 24 + [12.0] * 12


def test_rewards_are_loaded_by_name() -> None:
    assert load_reward("math:sqrt").modules == ("math",)
    for path in ("math", "math:nothing", "no.such.module:fn", ":fn"):
        with pytest.raises(UserError, match="cannot be loaded"):
            load_reward(path)
    with pytest.raises(UserError, match="not a function"):
        load_reward("math:pi")


def test_rewards_are_sought_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reward_next_to_me.py").write_text("def ones(completions, **_): return [1.0 for _ in completions]\n")
    monkeypatch.chdir(tmp_path)
    before = [entry for entry in sys.path if entry]
    monkeypatch.setattr(sys, "path", list(before))
    reward = load_reward("reward_next_to_me:ones")
    assert values(reward, ["a", "b"]) == [1.0, 1.0]
    monkeypatch.chdir("/")  # they stay what they are
    assert values(reward, ["a", "b"]) == [1.0, 1.0]
    assert sys.path == before


def test_a_reward_whose_child_returns_too_answers_once() -> None:
    for _ in range(5):
        assert values(named("forks"), ["x"] * 70) == [1.0] * 70


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", r"\(ZeroDivisionError: division by zero\)"),
        ("import sys; sys.exit('usage')", r"\(SystemExit: usage\)"),
        ("def fn(:", r"\(SyntaxError: invalid syntax"),
        ("import no_such_thing", r"\(ModuleNotFoundError: No module named 'no_such_thing'\)"),
        ("raise RuntimeError('two\\nlines')", r"\(RuntimeError: two lines\)"),
        ("import os; os.abort()", r"\(killed its process \(exit code -6\)\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "broken_reward.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f'reward "broken_reward:fn" cannot be loaded {message}'):
        load_reward("broken_reward:fn")
