"""`tiltlab check`: an honest reward passes, flawed ones fail for the reason that makes them flawed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiltlab.cli.main import app
from tiltlab.config.tasks import load_task
from tiltlab.errors import UserError
from tiltlab.evaluation.reward_audit import Checked, check, on_samples
from tiltlab.models.loading import ModelConfig, load_codec, load_reference
from tiltlab.rewards.functions import load_reward
from tiltlab.tasks.sums import Sums

FLAWED = "tiltlab.examples.flawed_rewards"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Forty problems with numbers for answers, and a few with formulae."""
    rows = [{"problem": f"What is {i} + 7, and why?", "answer": str(i + 7)} for i in range(36)]
    rows += [{"problem": f"Expand {i} a square.", "answer": f"x^2+{i}x"} for i in range(2, 6)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def checked(data: str, reward: str | None = None) -> Checked:
    task = load_task("math500", data)
    return check(task, task.problems("test"), load_reward(reward) if reward else None)


@pytest.mark.slow
def test_the_grader_of_mathematics_passes(data: str) -> None:
    found = checked(data)
    assert found.failures == []
    assert found.probes[0].paid == found.probes[0].texts == 40
    assert found.slowest < 6


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("substring", ["every number from 0 to 100", "the gold answer buried in prose", "a box left open"]),
        ("last_number", ["the gold answer buried in prose", "a box left open"]),
        ("length_bonus", ["long rambling without an answer"]),
    ],
)
def test_a_flawed_reward_fails_for_the_right_reason(data: str, name: str, reasons: list[str]) -> None:
    failed = {probe.name for probe in checked(data, f"{FLAWED}:{name}").probes if probe.failed}
    assert set(reasons) <= failed


@pytest.mark.parametrize("scale", ["signed", "minus", "shifted", "with_format"])
def test_an_honest_reward_passes_on_any_scale(data: str, scale: str) -> None:
    assert checked(data, f"tests.rewards_for_tests:{scale}").failures == []


def test_gold_answers_that_no_response_can_meet_are_noticed(tmp_path: Path) -> None:
    golds = [
        "18",
        "Answer: 150",
        "#### 18",
        r"\text{right triangle}",
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        "x^2+1",
        "(1, 2)",
        "1101_2",
    ]
    odd = [
        "First add 3 and 4 to get 7, then double it.",
        "['18'",
        "the sum of all of the numbers in the first row of the table",
    ]
    rows = [{"id": f"{i}", "problem": f"What is {i}?", "answer": answer} for i, answer in enumerate(golds + odd)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = checked(str(path))
    assert [id for id, _ in found.unread] == ["8", "9", "10"]
    assert any("gold answers" in failure and "8, 9, 10" in failure for failure in found.failures)


def test_a_reward_that_knows_no_answer_fails_on_gold(data: str) -> None:
    constant = checked(data, "tests.rewards_for_tests:ones")
    assert constant.failures[0].startswith("gold answers: only 0 of 40 accepted; rejected: ")
    silent = checked(data, "tests.rewards_for_tests:silent")
    assert "only 0 of 40 accepted, 40 could not be graded" in silent.failures[0]
    assert len(silent.probes[0].examples) == 40  # all that were rejected are listed
    length = {probe.name for probe in checked(data, "tests.rewards_for_tests:length").probes if probe.failed}
    assert {"gold answers", "long rambling without an answer"} <= length


def test_a_reward_that_cannot_be_called_is_an_error(data: str) -> None:
    result = CliRunner().invoke(
        app, ["check", "math500", "--data", data, "--reward", "tests.rewards_for_tests:takes_no_columns"]
    )
    assert isinstance(result.exception, UserError)
    assert "reward takes_no_columns raised TypeError" in str(result.exception)


@pytest.mark.slow
def test_the_command_says_why_and_with_its_exit_code(data: str, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    options = ["check", "math500", "--data", data, "--out", str(page)]
    passed = CliRunner().invoke(app, options)
    assert (passed.exit_code, "passes" in passed.stdout) == (0, True)
    failed = CliRunner().invoke(app, [*options, "--reward", f"{FLAWED}:substring"])
    assert failed.exit_code == 1
    assert "every number from 0 to 100" in failed.stdout
    shown = page.read_text(encoding="utf-8")
    assert "fails" in shown
    assert len(shown) < 100_000  # no picture, so nothing to draw one with


def test_samples_tell_of_signal_and_length() -> None:
    config = ModelConfig()
    model = load_reference(config, load_codec(config))
    task = Sums("lazy-sum")
    found = on_samples(model, task, task.problems("test")[:40], None, n=8, max_tokens=64, seed=0)
    assert 0.25 < found.accuracy < 0.5  # the base has .38, and 320 samples of 40 problems a standard error of .03
    assert found.signal > 0.8  # a group of eight is all wrong with probability .02
    assert found.length > 0.5  # the right answers are the long ones
