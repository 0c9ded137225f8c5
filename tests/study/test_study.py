"""Whole studies on the embedded model, small: stopped, killed, and left alone."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command
from tests.config.test_recipe import SMALL
from tests.models import tiny
from tests.processes import wait_until
from tests.report.written import write_report
from tiltlab.config.recipe import Recipe
from tiltlab.errors import Stopped, UserError
from tiltlab.report.findings import findings
from tiltlab.report.load import load_study
from tiltlab.report.tables import result_rows
from tiltlab.storage.files import read_json, read_lines
from tiltlab.study.job import Job, Work
from tiltlab.study.resume import State
from tiltlab.study.run import run_job
from tiltlab.study.study import plan, run_study
from tiltlab.study.training import with_best
from tiltlab.system import process_pool
from tiltlab.training.alarms import alarms

pytestmark = pytest.mark.slow

STUDY: dict[str, Any] = SMALL | {
    "arms": ["base", "task_reward", {"arm": "tempered", "alpha": 4}, {"arm": "sharpening", "fixed_length": True}],
    "train": {"steps": 8, "prompts": 3, "responses": 4, "max_tokens": 24, "optimizer": {"lr": 1e-3, "warmup_steps": 2}},
    "validation": {"every": 3, "problems": 6, "n": 2},
    "test": {"problems": 8, "n": 4, "forecast_n": 2},
}


def study(run: Path, jobs: int = 1, seeds: int = 1, **changes: Any) -> Recipe:
    recipe = Recipe.model_validate(STUDY | changes)
    run_study(recipe, run, seeds=seeds, jobs=jobs, devices=["cpu"], on_progress=lambda *_: None)
    return recipe


def essence(run: Path) -> dict[str, Any]:
    """All that a run folder says, but for clocks and for how it was made."""
    found: dict[str, Any] = {}
    for path in sorted((run / "cells").rglob("*.json*")):
        lines = read_lines(path) if path.suffix == ".jsonl" else [read_json(path)]
        found[str(path.relative_to(run))] = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    study(run)
    return run


def test_a_study_leaves_what_it_takes_to_tell_how_it_was_made(undisturbed: Path) -> None:
    about = read_json(undisturbed / "study.json")
    assert about["recipe"]["train"]["steps"] == 8
    assert set(about["made"][0]["versions"]) >= {"torch", "transformers"}
    assert about["data"]["lazy-sum"]["test"]["problems"] == 300
    assert len(about["data"]["lazy-sum"]["test"]["sha256"]) == 64
    folder = undisturbed / "cells" / "lazy-sum" / "task-reward" / "seed-0"
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == list(range(8))
    assert [line["step"] for line in read_lines(folder / "select.jsonl")] == [0, 3, 6, 8]
    result = read_json(folder / "result.json")
    kept = {int(path.name[5:]) for path in (folder / "checkpoints").iterdir()}
    assert kept == {result["best_step"], 8}
    assert not list(folder.rglob("optimizer.safetensors"))
    best = max(read_lines(folder / "select.jsonl")[1:], key=lambda line: line["accuracy"])
    assert (result["best_step"], result["best_accuracy"]) == (best["step"], best["accuracy"])


def test_all_arms_see_the_same_prompts_and_the_base_is_the_same_for_all(undisturbed: Path) -> None:
    found = load_study(undisturbed)
    starts = {arm.name: arm.seeds[0].validation[0] for arm in found.arms if arm.trained}
    assert len({json.dumps(start) for start in starts.values()}) == 1
    problems = [[record.problem for record in arm.seeds[0].last] for arm in found.arms]
    assert all(order == problems[0] for order in problems)


def test_a_fixed_length_twin_trains_on_full_lengths(undisturbed: Path) -> None:
    folder = undisturbed / "cells" / "lazy-sum" / "sharpening--fixed-length" / "seed-0"
    assert {line["length"] for line in read_lines(folder / "metrics.jsonl")} == {24}
    assert {line["truncated"] for line in read_lines(folder / "metrics.jsonl")} == {0}
    assert read_lines(folder / "select.jsonl")[-1]["length"] < 24  # evaluation heeds EOS


def test_a_trained_checkpoint_is_a_model_like_any(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = undisturbed / "cells" / "lazy-sum" / "task-reward" / "seed-0" / "checkpoints" / "step-000008"
    AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert AutoTokenizer.from_pretrained(folder)("47+85")["input_ids"]


def test_a_study_that_is_done_is_left_alone(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "cells").rglob("*")}
    study(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "cells").rglob("*")} == before


def test_workers_side_by_side_give_the_same_study(undisturbed: Path, tmp_path: Path) -> None:
    study(tmp_path, jobs=2, arms=["base", "task_reward"])
    expected = {
        path: lines for path, lines in essence(undisturbed).items() if "/base/" in path or "/task-reward/" in path
    }
    assert essence(tmp_path) == expected


def test_a_stop_while_evaluating_loses_no_step(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(STUDY)
    job = next(job for job in plan(recipe, 1) if job.arm.name == "task reward")
    told: list[str] = []
    folder = job.folder(tmp_path)
    with pytest.raises(Stopped):  # the fifth: step 0 evaluated, three steps, evaluating again
        run_job(Work(job, recipe, folder, lambda *news: told.append(news[0]), lambda: len(told) >= 5))
    assert told == ["validation split", "training", "training", "training", "validation split"]
    assert folder.checkpoints.steps() == [3]
    assert [line["step"] for line in read_lines(folder.validation)] == [0]


def test_killed_between_the_last_cleaning_and_the_result_a_job_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    for path in (tmp_path / "run").rglob("result.json"):
        path.unlink()
    study(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(undisturbed)


def test_an_arm_that_cannot_be_finished_leaves_the_others_alone(undisturbed: Path, tmp_path: Path) -> None:
    overflowing = {"arm": "objective", "sharpen": 1e39}  # times log p, it is beyond float32
    recipe = Recipe.model_validate(STUDY | {"arms": [overflowing, "base", "task_reward"]})
    for _ in range(2):  # the same command tries again, and says so again
        failed = run_study(recipe, tmp_path, seeds=1, jobs=1, devices=["cpu"], on_progress=lambda *_: None)
        assert [job.arm.name for job in failed] == ["w=0 s=1e+39 beta=0"]
        assert "gradient of step 0" in read_json(failed[0].folder(tmp_path).failed)["error"]
    found, expected = essence(tmp_path), essence(undisturbed)
    same = [path for path in found if "/base/" in path or "/task-reward/" in path]
    assert same
    assert {path: found[path] for path in same} == {path: expected[path] for path in same}


def test_an_accuracy_that_nobody_knows_loses_to_any_other() -> None:
    nan = float("nan")
    state = with_best(State(step=3), nan)
    assert (state.best_step, state.evaluated) == (3, 3)
    state = with_best(replace(state, step=6), 0.1)
    assert (state.best_step, state.best_accuracy) == (6, 0.1)
    assert with_best(replace(state, step=9), nan).best_step == 6
    assert with_best(replace(state, step=9), 0.1).best_step == 6


def test_threads_do_not_change_with_the_jobs_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    real = process_pool.run_all
    # what is done with them is not looked at here, so that one process will do
    monkeypatch.setattr(
        process_pool, "run_all", lambda *a, **k: (given.append(k["begin"].args[0]), real(*a, **(k | {"jobs": 1})))
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    study(tmp_path, jobs=2, arms=["base", "task_reward"])
    next(tmp_path.rglob("base/*/result.json")).unlink()
    study(tmp_path, jobs=2, arms=["base", "task_reward"])
    assert given == [3, 3]
    assert read_json(tmp_path / "study.json")["made"][0]["threads"] == 3


@pytest.mark.parametrize("stop_after", [1, 2, 4, 7, 13])
def test_a_stop_between_any_two_steps_changes_nothing(stop_after: int, undisturbed: Path, tmp_path: Path) -> None:
    """Steps 1 to 8 are training, later ones evaluation; some stops fall on a checkpoint's step, some do not."""
    recipe = Recipe.model_validate(STUDY)
    job = next(job for job in plan(recipe, 1) if job.arm.name == "task reward")
    told: list[str] = []

    def work(limit: float) -> Work:
        return Work(job, recipe, job.folder(tmp_path), lambda *news: told.append(news[0]), lambda: len(told) >= limit)

    with pytest.raises(Stopped):
        run_job(work(stop_after))
    run_job(work(float("inf")))
    name = str(job.folder(tmp_path).path.relative_to(tmp_path))
    expected = {path: lines for path, lines in essence(undisturbed).items() if path.startswith(name)}
    assert essence(tmp_path) == expected


STOPPED: dict[str, Any] = {
    "arms": [{"arm": "sharpening"}],
    "train": {
        "steps": 40,
        "prompts": 4,
        "responses": 6,
        "max_tokens": 24,
        "optimizer": {"lr": 3e-3, "warmup_steps": 2},
        "stop_on": ["repeated text", "KL run-away"],
    },
}


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped")
    study(run, **STOPPED)
    return run


def test_the_base_draws_more_for_the_forecast(undisturbed: Path) -> None:
    assert [path.parent.parent.name for path in undisturbed.rglob("records-forecast.jsonl")] == ["base"]
    found = load_study(undisturbed)
    (base,) = found.base("lazy-sum").seeds  # type: ignore[union-attr]
    assert len(base.more) == 8 * 2
    assert [r.text for r in base.more] != [r.text for r in base.last if r.sample < 2]  # draws of their own
    told = findings(found, "lazy-sum").forecast
    assert told is not None
    assert any(not record.complete for record in base.more)
    assert told.truncated == sum(not record.complete for record in [*base.last, *base.more])  # it has looked at both
    assert result_rows(found)[0].accuracy.value == pytest.approx(
        sum(record.reason == "correct" for record in base.last) / len(base.last)
    )


def test_an_arm_stops_on_the_alarm_that_the_recipe_names(stopped_early: Path) -> None:
    (path,) = stopped_early.rglob("result.json")
    result = read_json(path)
    assert result["step"] < 40
    assert result["stopped"].startswith(f"KL run-away at step {result['step']}: ")
    assert read_lines(path.parent / "select.jsonl")[-1]["step"] == result["step"]
    assert len(read_lines(path.parent / "metrics.jsonl")) == result["step"]
    found = load_study(stopped_early)
    assert found.arms[0].seeds[0].steps == {"last": result["step"], "best": result["best_step"]}
    assert result_rows(found)[0].warnings == [f"seed 0 stopped early, {result['stopped']}"]
    page = write_report(stopped_early).read_text()
    assert f"seed 0 stopped early, KL run-away at step {result['step']}" in page
    assert "up to 40 steps" in page


@pytest.mark.parametrize("jobs", [1, 2])
def test_alarms_are_told_as_they_fire(jobs: int, stopped_early: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    def on_progress(job: Job, doing: str, done: int, total: int, news: str = "") -> None:
        if news:
            told.append((news, done))

    run_study(
        Recipe.model_validate(STUDY | STOPPED), tmp_path, seeds=1, jobs=jobs, devices=["cpu"], on_progress=on_progress
    )
    (result,) = stopped_early.rglob("result.json")
    stopped = read_json(result)
    assert (f"alarm: {stopped['stopped']}", stopped["step"]) in told
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    fired = alarms(read_lines(metrics), read_lines(metrics.with_name("select.jsonl")))
    assert "; ".join(f"alarm: {one}" for one in fired) == "; ".join(news for news, _ in told)


@pytest.mark.parametrize("before_the_end", [0, 1, 2, 3, 6])
def test_stopped_before_or_after_its_alarm_it_ends_the_same(
    before_the_end: int, stopped_early: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(STUDY | STOPPED)
    (job,) = plan(recipe, 1)
    told: list[str] = []

    def work(limit: float) -> Work:
        return Work(job, recipe, job.folder(tmp_path), lambda *news: told.append(news[0]), lambda: len(told) >= limit)

    (result,) = stopped_early.rglob("result.json")
    step = read_json(result)["step"]
    news = 1 + step + step // 3  # the evaluation before the first step, the steps, and the evaluations in between
    with pytest.raises(Stopped):
        run_job(work(news - before_the_end))
    run_job(work(float("inf")))
    assert essence(tmp_path) == essence(stopped_early)


def test_an_arm_stopped_early_and_cleaned_but_not_closed_ends_the_same(stopped_early: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped_early, tmp_path / "run")
    for path in (tmp_path / "run").rglob("result.json"):
        path.unlink()
    study(tmp_path / "run", **STOPPED)
    assert essence(tmp_path / "run") == essence(stopped_early)


def test_ctrl_c_saves_and_says_so(undisturbed: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(STUDY))
    process = Command("study", str(recipe), "--out", str(run), "--jobs", "2")
    wait_until(lambda: bool(list(run.rglob("metrics.jsonl"))) or process.poll() is not None)
    assert process.poll() is None, process.said()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    assert process.ended(600) == 130, process.said()
    assert "the same command goes on from there" in process.said()
    folders = [path.parent for path in run.rglob("metrics.jsonl")]
    assert any((folder / "checkpoints").exists() for folder in folders)
    study(run)
    assert essence(run) == essence(undisturbed)


def test_a_worker_that_dies_is_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a worker process was killed"):
        study(tmp_path, jobs=2, train=STUDY["train"] | {"reward": "tests.rewards_for_tests:deadly"})


def test_two_studies_do_not_write_into_one_folder(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another tiltlab is running"):
            study(tmp_path)


def test_a_full_disk_stops_a_study_and_loses_nothing(undisturbed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real = shutil.disk_usage
    calls = []

    def filling_up(path: Path) -> Any:
        calls.append(path)
        usage = real(path)
        return usage if len(calls) < 3 else usage._replace(free=10)

    monkeypatch.setattr(shutil, "disk_usage", filling_up)
    with pytest.raises(UserError, match="no room for the checkpoint of step 8.*step 6 is kept"):
        study(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", real)
    study(tmp_path)
    assert essence(tmp_path) == essence(undisturbed)


def test_seeds_are_independent_and_extend_a_study(tmp_path: Path) -> None:
    changes = {"arms": ["base", "task_reward"], "train": STUDY["train"] | {"steps": 2}}
    study(tmp_path, **changes)
    first = essence(tmp_path)
    study(tmp_path, seeds=2, **changes)
    both = essence(tmp_path)
    assert {path: both[path] for path in first} == first
    assert (
        both["cells/lazy-sum/base/seed-0/records-last.jsonl"] != both["cells/lazy-sum/base/seed-1/records-last.jsonl"]
    )
    row = next(row for row in result_rows(load_study(tmp_path)) if row.arm == "base")
    assert len(row.seed_accuracies) == 2
    assert row.over_seeds is not None
    assert row.accuracy.value == pytest.approx(sum(row.seed_accuracies) / 2)


def test_an_adapter_is_trained_saved_and_resumed(tmp_path: Path) -> None:
    model = {"path": "embedded", "lora": {"rank": 4}}
    recipe = Recipe.model_validate(STUDY | {"model": model, "arms": ["task_reward"]})
    (job,) = plan(recipe, 1)
    told: list[int] = []

    def work(folder: Path, limit: float) -> Work:
        return Work(job, recipe, job.folder(folder), lambda *_: told.append(1), lambda: len(told) >= limit)

    run_job(work(tmp_path / "straight", float("inf")))
    told.clear()
    with pytest.raises(Stopped):
        run_job(work(tmp_path / "stopped", 5))
    run_job(work(tmp_path / "stopped", float("inf")))
    assert essence(tmp_path / "straight") == essence(tmp_path / "stopped")
    saved = job.folder(tmp_path / "straight").checkpoints.step(8)
    assert (saved / "adapter_model.safetensors").exists()


def test_chat_data_runs_end_to_end_on_a_local_model(tmp_path: Path) -> None:
    """The road of a hub model: a folder with config, weights, tokenizer and chat template, and problems from JSONL."""
    module = tiny.llama()
    module.save_pretrained(tmp_path / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"problem": "abc"[i % 3] * (1 + i % 4), "answer": str(i)} for i in range(12)]
    files = {}
    for name, some in (("train", rows[1:]), ("test", rows[:1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        files[name] = str(tmp_path / f"{name}.jsonl")
    task = {"task": "data", **files, "validation": 2, "template": "{question}", "grader": "number"}
    study(tmp_path / "run", tasks=[task], model={"path": str(tmp_path / "model")}, arms=["base", "sharpening"])
    assert {row.arm for row in result_rows(load_study(tmp_path / "run"))} == {"base", "sharpening"}


def test_where_nothing_is_learnt_a_test_split_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(4)))
    task = {"task": "math500", "test": str(path), "prompt": "plain", "template": "{question}", "grader": "number"}
    study(tmp_path / "run", tasks=[task], arms=["base"])
    (split,) = read_json(tmp_path / "run" / "study.json")["data"]["math500"].items()
    assert split[0] == "test"
    assert split[1]["notes"] == [f"{path}: gold answers from answer (4 rows)"]
    with pytest.raises(UserError, match="set math500 is for testing only"):
        study(tmp_path / "other", tasks=[task])


def test_jobs_are_named_by_what_they_are() -> None:
    jobs = plan(Recipe.model_validate(STUDY), 2)
    assert len(jobs) == len({job.key for job in jobs}) == 8
    assert isinstance(jobs[0], Job)
    assert jobs[0].key == "lazy-sum / task reward / seed 0"
