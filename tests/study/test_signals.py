"""Arms that take no label, end to end on the embedded model: trained, evaluated, reported by their own names."""

import json
from pathlib import Path

import pytest

from tests.report.written import write_report
from tests.study.test_study import STUDY, study
from tiltlab.report.load import load_study
from tiltlab.report.styles import family
from tiltlab.storage.files import read_json, read_lines, write_json

pytestmark = pytest.mark.slow

ARMS = [
    "base",
    {"arm": "answer_power", "g": 2, "budget": 8},
    {"arm": "task_reward", "signal": "vote"},
    {"arm": "task_reward", "signal": "random"},
    {"arm": "task_reward", "signal": "format", "advantage": {"passk": 2}},
    "entropy_minimization",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("signals")
    study(run, arms=ARMS, train=STUDY["train"] | {"steps": 3})
    return run


def test_they_stand_in_the_study_as_what_they_are(run: Path) -> None:
    about = read_json(run / "study.json")
    names = ["base", "answer power 2", "vote", "random reward", "format reward, pass@2", "entropy minimization"]
    assert about["arms"] == names
    assert about["natures"] == ["base", "answers", "trained", "trained", "trained", "trained"]
    assert not list(run.rglob("failed.json"))


def test_training_logs_accuracy_beside_the_signals_reward(run: Path) -> None:
    for arm in ("vote", "random-reward", "format-reward--pass-2"):
        (metrics,) = (run / "cells").glob(f"*/{arm}/seed-0/metrics.jsonl")
        lines = read_lines(metrics)
        assert len(lines) == 3
        assert all(0 <= line["accuracy"] <= 1 for line in lines)
        assert any(line["accuracy"] != line["reward"] for line in lines)


def test_answer_power_says_what_it_took(run: Path) -> None:
    (sampling,) = (run / "cells").glob("*/answer-power-2/seed-0/sampling-last.json")
    notes = read_json(sampling)["notes"]
    assert all(len(values) == STUDY["test"]["problems"] for values in notes.values())
    assert all(0 <= share <= 1 for share in notes["acceptance"])
    assert max(notes["responses_drawn"]) <= STUDY["test"]["n"] * 8


def test_the_report_never_says_task_reward(run: Path) -> None:
    found = load_study(run)
    assert [family(arm.config) for arm in found.arms if arm.trained] == ["own reward"] * 4
    assert "task reward" not in write_report(run).read_text(encoding="utf-8")


def test_a_study_from_before_there_were_signals_goes_on(tmp_path: Path) -> None:
    few = {"arms": ["base", "task_reward"], "train": STUDY["train"] | {"steps": 1}}
    study(tmp_path, **few)
    about = read_json(tmp_path / "study.json")
    for arm in about["recipe"]["arms"]:
        arm.pop("signal", None)
        arm.pop("advantage", None)
    write_json(tmp_path / "study.json", about)
    study(tmp_path, **few)
    assert "signal" in json.dumps(read_json(tmp_path / "study.json")["recipe"]["arms"])


def test_an_arm_whose_rewards_do_not_suit_its_advantage_fails_alone_and_for_good(tmp_path: Path) -> None:
    train = STUDY["train"] | {"steps": 1, "reward": "tests.rewards_for_tests:shortness"}
    arms = ["base", {"arm": "task_reward", "advantage": "passk(2)"}, {"arm": "task_reward", "advantage": "maxrl"}]
    study(tmp_path, arms=arms, train=train)
    failed = {path.parent.parent.name: read_json(path) for path in tmp_path.rglob("failed.json")}
    assert "passk(2) needs rewards of 0 or 1" in failed["task-reward--pass-2"]["error"]
    assert "maxrl needs rewards of 0 or more" in failed["task-reward--maxrl"]["error"]
    assert all(one["lasting"] for one in failed.values())
    (done,) = tmp_path.rglob("result.json")
    assert done.parent.parent.name == "base"
