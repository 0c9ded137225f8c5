"""One training, tested on several sets: records, rows, verdicts and pages of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_recipe import SMALL
from tests.report.written import write_report
from tiltlab.config.recipe import Recipe
from tiltlab.report.findings import findings
from tiltlab.report.load import load_study
from tiltlab.report.tables import result_rows
from tiltlab.storage.files import read_json, read_lines, write_json
from tiltlab.storage.records import read_records
from tiltlab.study.estimate import estimate
from tiltlab.study.study import check, plan, run_study, taught

pytestmark = pytest.mark.slow

SETS: dict[str, Any] = SMALL | {
    "arms": ["base", "task_reward"],
    "train": SMALL["train"] | {"max_tokens": 12},
    "validation": {"every": 2, "problems": 3, "n": 2, "max_tokens": 4},
    "test": {
        "n": 4,
        "forecast_n": 2,
        "problems": 6,
        "sets": ["noisy-sum", {"task": "spread-sum", "n": 3, "problems": 5, "max_tokens": 20}, "lazy-sum"],
    },
}


def done(run: Path, **changes: Any) -> Recipe:
    recipe = Recipe.model_validate(SETS | changes)
    run_study(recipe, run, seeds=1, jobs=1, devices=["cpu"], on_progress=lambda *_: None)
    return recipe


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("sets")
    done(run)
    return run


def test_each_set_has_records_of_its_own(tested: Path) -> None:
    for arm in ("base", "task-reward"):
        job = tested / "cells" / "lazy-sum" / arm / "seed-0"
        for folder, task, n, problems, limit in (
            (job, "lazy-sum", 4, 6, 12),
            (job / "tests" / "noisy-sum", "noisy-sum", 4, 6, 12),
            (job / "tests" / "spread-sum", "spread-sum", 3, 5, 20),
        ):
            records = read_records(folder / "records-last.jsonl")
            assert {record.task for record in records} == {task}
            assert len(records) == n * problems
            assert max(record.tokens for record in records) <= limit
            assert any(record.tokens == limit for record in records), "the limit is the set's own"
            assert (folder / "records-forecast.jsonl").exists() == (arm == "base")
    validated = read_lines(tested / "cells" / "lazy-sum" / "task-reward" / "seed-0" / "select.jsonl")
    assert max(line["length"] for line in validated) <= 4


def test_each_set_has_rows_verdicts_and_a_place_on_the_page(tested: Path) -> None:
    study = load_study(tested)
    labels = ["noisy-sum, from lazy-sum", "spread-sum, from lazy-sum", "lazy-sum"]
    assert study.tasks == labels
    rows = result_rows(study)
    assert {(row.task, row.k) for row in rows} == {(labels[0], 4), (labels[1], 3), (labels[2], 4)}
    assert all(findings(study, label).verdicts.keys() == {"task reward"} for label in labels)
    base = study.base(labels[1])
    assert base is not None
    assert len(base.seeds[0].more) == 2 * 5  # the forecast of a set is from the base's samples on it
    page = write_report(tested).read_text()
    assert all(f"<h3>{label}</h3>" in page for label in labels)
    assert "4 (noisy-sum), 3 (spread-sum), 4 (lazy-sum) samples" in page
    assert "within 12 (noisy-sum), 20 (spread-sum), 12 (lazy-sum) tokens" in page
    table = (tested / "tables" / "results.csv").read_text().splitlines()
    assert "pass@n" in table[0]
    assert sum(line.startswith('"spread-sum, from lazy-sum",') for line in table) == 2
    training = [arm for arm in study.arms if arm.seeds[0].metrics]
    assert [arm.task for arm in training] == ["lazy-sum"]  # a training has one course
    assert page.count('id="curves-') == page.count('id="curves-2-') > 0
    (card,) = (tested / "cells" / "lazy-sum" / "task-reward").rglob("README.md")
    assert all(f"| {name} |" in card.read_text() for name in ("lazy-sum", "noisy-sum", "spread-sum"))
    question = json.loads((tested / "problems.jsonl").read_text().splitlines()[0])["question"]
    assert question in page


def test_the_tasks_own_records_are_those_of_a_study_without_other_sets(tested: Path, tmp_path: Path) -> None:
    done(tmp_path, test={"n": 4, "forecast_n": 2, "problems": 6})
    name = Path("cells") / "lazy-sum" / "task-reward" / "seed-0" / "records-last.jsonl"
    assert (tested / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_study_with_sets_is_gone_on_with_and_then_left_alone(tested: Path) -> None:
    records = tested / "cells" / "lazy-sum" / "base" / "seed-0" / "tests" / "noisy-sum" / "records-last.jsonl"
    before = records.read_bytes()
    records.unlink()
    (tested / "cells" / "lazy-sum" / "base" / "seed-0" / "result.json").unlink()
    done(tested)
    assert records.read_bytes() == before


def test_without_the_tasks_own_split_the_first_set_leads(tmp_path: Path) -> None:
    done(tmp_path, test={"n": 2, "problems": 2, "forecast_n": 0, "sets": ["noisy-sum", "spread-sum"]})
    study = load_study(tmp_path)
    assert [arm.task for arm in study.arms if arm.seeds[0].metrics] == ["noisy-sum, from lazy-sum"]
    assert not (tmp_path / "cells" / "lazy-sum" / "base" / "seed-0" / "records-last.jsonl").exists()
    write_report(tmp_path)


def test_a_folder_from_before_there_were_sets_is_read_as_ever(tmp_path: Path) -> None:
    plain = {"test": {"n": 2, "problems": 2, "forecast_n": 0}, "validation": {"every": 2, "problems": 3, "n": 2}}
    done(tmp_path, **plain)
    about = read_json(tmp_path / "study.json")
    del about["tests"], about["recipe"]["test"]["sets"], about["recipe"]["test"]["max_tokens"]
    del about["recipe"]["train"]["truncated"], about["recipe"]["validation"]["max_tokens"]
    write_json(tmp_path / "study.json", about)
    assert load_study(tmp_path).tasks == ["lazy-sum"]
    done(tmp_path, **plain)


def rows(path: Path, *questions: str) -> str:
    path.write_text("".join(json.dumps({"problem": q, "answer": "7"}) + "\n" for q in questions))
    return str(path)


def with_data(tmp_path: Path, *train: str) -> Recipe:
    data = {"task": "data", "train": rows(tmp_path / "train.jsonl", *train), "test": rows(tmp_path / "own.jsonl", "q0")}
    data |= {"validation": 2, "prompt": "plain", "template": "{question}="}
    other = {"task": "minerva", "test": rows(tmp_path / "other.jsonl", "What is 3 + 4?", "else"), "prompt": "plain"}
    return Recipe.model_validate(SETS | {"tasks": [data], "test": ["own", other]})


def test_no_question_of_a_test_set_is_learnt_from(tmp_path: Path) -> None:
    recipe = with_data(tmp_path, "q0", "q1", "q2", "what is 3 + 4", "q3", "q4", "q5")
    facts = check(recipe)["data"]
    assert {name: fact["problems"] for name, fact in facts.items()} == {
        "train": 3, "validation": 2, "test": 1, "test minerva": 2,
    }  # fmt: skip
    assert any("stands in test set minerva too, and was left out" in note for note in facts["train"]["notes"])
    (task,) = taught(recipe)
    assert "what is 3 + 4" not in [problem.question for problem in task.problems("train")]
    assert plan(recipe, 1)[0].task.name == "data"


def test_what_is_drawn_is_counted_by_each_sets_own_limits(tmp_path: Path) -> None:
    planned = estimate(Recipe.model_validate(SETS), tmp_path, 1)
    base = next(job for job in planned.jobs if not job.trains)
    assert base.tokens == 6 * (4 + 2) * 12 + 5 * (3 + 2) * 20 + 6 * (4 + 2) * 12
    (trained,) = (job for job in planned.jobs if job.trains)
    drawn = 2 * (6 * 4 * 12 + 5 * 3 * 20 + 6 * 4 * 12)  # of the last checkpoint and of the best
    assert trained.tokens == drawn + 2 * 3 * 2 * 4 + 2 * 2 * 2 * 12
