"""Studies side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.test_report import made_study
from tiltlab.errors import UserError
from tiltlab.report.compare import compare_runs, in_words, write_comparison
from tiltlab.stats.metrics import Interval

EVIL = "<script>alert(1)</script>"


def changed(run: Path, **recipe: object) -> Path:
    about = json.loads((run / "study.json").read_text())
    about["recipe"] |= recipe
    (run / "study.json").write_text(json.dumps(about))
    return run


def test_each_arm_of_each_run_and_the_difference_on_the_same_problems(tmp_path: Path) -> None:
    found = compare_runs([made_study(tmp_path / "one"), made_study(tmp_path / "two", seeds=2)])
    assert [(s.arm, s.run) for s in found.sides] == [
        ("base", "one"), ("base", "two"), ("task reward", "one"), ("task reward", "two"),
    ]  # fmt: skip
    base, again, tuned, seeds = found.sides
    assert base.against is tuned.against is None
    assert again.against is not None
    assert again.against.value == 0
    assert seeds.against is not None
    assert seeds.against.value == pytest.approx(seeds.row.accuracy.value - tuned.row.accuracy.value)
    assert seeds.against.value < 0
    assert found.differing == {"seeds": [1, 2]}
    assert not found.notes


def test_what_differs_for_sure_is_said_first(tmp_path: Path) -> None:
    found = compare_runs([made_study(tmp_path / "one"), made_study(tmp_path / "two")])
    assert in_words(found, "lazy-sum") == "no arm differs for sure."
    *others, last = found.sides
    better = replace(last, against=Interval(0.2, 0.1, 0.3), verdict="beyond sharpening")
    others[2] = replace(others[2], verdict="no gain")
    told = in_words(replace(found, sides=(*others, better)), "lazy-sum")
    assert told == (
        "task reward: no gain in one, beyond sharpening in two; task reward: +0.200 [+0.100, +0.300] in two."
    )


def test_other_problems_give_no_difference_and_say_so(tmp_path: Path) -> None:
    one, two = made_study(tmp_path / "one"), made_study(tmp_path / "two")
    about = json.loads((two / "study.json").read_text())
    about["data"]["lazy-sum"]["test"]["sha256"] = "1" * 64
    (two / "study.json").write_text(json.dumps(about))
    found = compare_runs([one, two])
    assert all(side.against is None for side in found.sides)
    assert "different problems" in found.notes[0]


def test_what_differs_between_recipes_is_told_and_escaped(tmp_path: Path) -> None:
    one = made_study(tmp_path / "one")
    two = changed(made_study(tmp_path / "two", text=EVIL), name=EVIL)
    found = compare_runs([one, two])
    assert found.differing["name"][1] == EVIL
    page = write_comparison(found, tmp_path / "out").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page
    assert (tmp_path / "out" / "tables" / "compare.csv").read_text().count("\n") == 5


def test_an_arm_that_both_have_is_compared_key_by_key(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, {"arm": "tilted", "beta": 0.1, "label": "mine"}]
    other = [{"arm": "base"}, {"arm": "tilted", "beta": 0.2, "label": "mine"}, {"arm": "task_reward"}]
    one, two = made_study(tmp_path / "one", arms=arms), made_study(tmp_path / "two", arms=other)
    differing = compare_runs([one, two]).differing
    assert differing == {"arms": ["base, mine", "base, mine, task reward"], "mine: beta": [0.1, 0.2]}


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    found = compare_runs([made_study(tmp_path / "a" / "run"), made_study(tmp_path / "b" / "run")])
    assert len(set(found.runs)) == 2


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run")
    refused = {
        "two": [run],
        "twice": [run, run],
        "does not exist": [run, tmp_path / "none"],
        "no study": [run, tmp_path],
    }
    for says, folders in refused.items():
        with pytest.raises(UserError, match=says):
            compare_runs(folders)
