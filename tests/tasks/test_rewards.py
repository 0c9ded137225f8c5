import math
from typing import Any

import pytest

from tiltlab.errors import UserError
from tiltlab.tasks.base import grade_all
from tiltlab.tasks.rewards import load_reward
from tiltlab.tasks.sums import Sums
from tiltlab.types import Rollout

TASK = Sums("lazy-sum")
PROBLEMS = TASK.problems("train")[:2]


def graded(reward: Any) -> Any:
    rollouts = [[Rollout((1,), f"so {p.answer}", True, ()), Rollout((1,), "no", True, ())] for p in PROBLEMS]
    return grade_all(TASK, PROBLEMS, rollouts, reward)


def test_a_reward_of_ones_own_sees_what_trl_would_show_it() -> None:
    def reward(prompts: list[str], completions: list[str], answer: list[str], a: list[int], **_: Any) -> list[float]:
        assert prompts == [TASK.render(p) for p in PROBLEMS for _ in range(2)]
        return [len(text) + a[i] + float(answer[i]) / 1000 for i, text in enumerate(completions)]

    grades = graded(reward)
    first = PROBLEMS[0]
    expected = len(f"so {first.answer}") + first.columns["a"] + float(first.answer) / 1000
    assert grades[0][0].reward == pytest.approx(expected)
    assert [grade.reason for grade in grades[0]] == [
        "correct",
        "no_answer",
    ]  # whether it is right stays the task's word


def test_none_is_ungraded_not_wrong() -> None:
    grades = graded(lambda completions, **_: [None, 1.0] * 2)
    assert math.isnan(grades[0][0].reward)
    assert grades[0][0].reason == "error"
    assert grades[0][1].reward == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "returned 1 values for 4 responses"),
        ([1.0] * 5, "returned 5 values"),
        ([1.0, math.nan, 0.0, 0.0], "returned nan for problem"),
        ([1.0, math.inf, 0.0, 0.0], "returned inf"),
        (["1", "1", "1", "1"], "returned '1'"),
    ],
)
def test_a_reward_that_misbehaves_is_named(values: list[Any], message: str) -> None:
    def bad(**_: Any) -> list[Any]:
        return values

    with pytest.raises(UserError, match=f"reward bad {message}"):
        graded(bad)


def test_a_reward_that_raises_is_named() -> None:
    def broken(completions: list[str]) -> list[float]:  # takes no **columns
        return [0.0 for _ in completions]

    with pytest.raises(UserError, match="reward broken raised TypeError: .*unexpected keyword"):
        graded(broken)


def test_rewards_are_loaded_by_name() -> None:
    assert load_reward("math:sqrt") is math.sqrt
    for path in ("math", "math:nothing", "no.such.module:fn", ":fn"):
        with pytest.raises(UserError, match="cannot be loaded"):
            load_reward(path)
    with pytest.raises(UserError, match="not a function"):
        load_reward("math:pi")
