import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


def test_none_takes_the_reward_and_leaves_the_answer_to_the_task() -> None:
    """Else a reward that abstains on wrong answers would raise accuracy."""
    grades = graded(lambda completions, **_: [None, None, 1.0, 2.0])
    own = graded(None)
    assert all(math.isnan(grade.reward) for grade in grades[0])
    assert [(g.answer, g.reason) for g in grades[0]] == [(g.answer, g.reason) for g in own[0]]
    assert [g.reason for g in grades[0]] == ["correct", "no_answer"]
    assert [g.reward for g in grades[1]] == [1.0, 2.0]


def test_scalars_of_any_library_are_numbers() -> None:
    values = [np.float32(0.5), torch.tensor(2.0, requires_grad=True), True, np.bool_(False)]
    grades = graded(lambda **_: values)
    found = [grade.reward for group in grades for grade in group]
    assert found == [0.5, 2.0, 1.0, 0.0]
    assert all(type(reward) is float for reward in found)
    assert [g.reward for g in graded(lambda **_: torch.arange(4))[1]] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "returned 1 values for 4 responses"),
        ([1.0] * 5, "returned 5 values"),
        ([1.0, math.nan, 0.0, 0.0], "returned nan for problem"),
        ([1.0, math.inf, 0.0, 0.0], "returned inf"),
        (["1", "1", "1", "1"], "returned '1'"),
        ([[1.0], 1.0, 1.0, 1.0], r"returned \[1.0\] for problem"),
        ([{"reward": 1.0}] * 4, "returned {'reward': 1.0} for problem"),
        ([b"1"] * 4, "returned b'1' for problem"),
        ([1j] * 4, "returned 1j for problem"),
        ([10**400] * 4, "returned 1000000000"),
        ([np.nan] * 4, "returned nan"),
        ([np.array([[1.0], [1.0]])] * 4, "returned array"),
        ([torch.tensor([1.0])] * 4, "returned tensor"),
        (None, "returned a NoneType; it must return a list"),
        (1.0, "returned a float; it must return a list"),
        ("1111", "returned a str; it must return a list"),
        (dict.fromkeys(range(4), 1.0), "returned a dict; it must return a list"),
    ],
)
def test_a_reward_that_misbehaves_is_named_in_one_line(values: Any, message: str) -> None:
    def bad(**_: Any) -> Any:
        return values

    with pytest.raises(UserError, match=f"reward bad {message}") as caught:
        graded(bad)
    assert "\n" not in str(caught.value)


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


def test_rewards_are_sought_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reward_next_to_me.py").write_text("def ones(completions, **_): return [1.0 for _ in completions]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for _ in range(2):
        assert load_reward("reward_next_to_me:ones")(completions=["a", "b"]) == [1.0, 1.0]
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", r"\(ZeroDivisionError: division by zero\)"),
        ("import sys; sys.exit('usage')", r"\(SystemExit: usage\)"),
        ("def fn(:", r"\(SyntaxError: invalid syntax"),
        ("import no_such_thing", r"\(ModuleNotFoundError: No module named 'no_such_thing'\)"),
        ("raise RuntimeError('two\\nlines')", r"\(RuntimeError: two lines\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "broken_reward.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f'reward "broken_reward:fn" cannot be loaded {message}'):
        load_reward("broken_reward:fn")
