"""`tiltlab list`, `tiltlab status` and `tiltlab study --dry-run`: what there is, where it is, what it would take."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import ROWS, data, run
from tests.cli.test_output import PROGRAM, told
from tests.config.test_recipe import SMALL, recipe
from tiltlab.config.offered import NEEDED, offered
from tiltlab.config.recipe import load_recipe, load_sample_recipe
from tiltlab.storage.files import append_line, keep_first, read_json, read_lines, write_json
from tiltlab.storage.run_folder import JobDir
from tiltlab.tasks.sums import Sums


@pytest.mark.parametrize("what", ["arms", "samplers", "tasks"])
def test_what_there_is_is_listed(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(monkeypatch, capsys, "list", what)[what]
    assert run(monkeypatch, "list", what) == 0
    said = capsys.readouterr().out
    for entry in found:
        assert (
            f"{entry['name']}: {entry['says']}" in said.replace("\n", " ").replace("  ", " ") or entry["says"] in said
        )
        assert entry["says"].endswith(".")
        assert "\n" not in entry["says"]
    names = [entry["name"] for entry in found]
    assert {"arms": "tilted", "samplers": "greedy", "tasks": "math500"}[what] in names
    assert len(set(names)) == len(names)


def test_defaults_are_those_that_a_recipe_gets() -> None:
    for entry in offered("samplers"):
        sampler = load_sample_recipe(None, [f"sampler={entry.name}"]).sampler
        assert {key: getattr(sampler, key) for key in entry.keys} == entry.keys
    needed = {entry.name: [key for key, value in entry.keys.items() if value == NEEDED] for entry in offered("arms")}
    assert needed["tempered"] == ["alpha"]
    assert needed["tilted"] == ["beta"]


def test_a_dry_run_tells_of_everything_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tiltlab.study.study.load_base", lambda *_: pytest.fail("weights were loaded"))
    train = data(tmp_path / "train.jsonl", *ROWS)
    test = data(tmp_path / "test.jsonl", {"problem": "what is 3", "answer": "3"}, {"problem": "9?", "answer": "9"})
    task = {
        "task": "data",
        "train": train,
        "test": test,
        "validation": 2,
        "prompt": "plain",
        "template": "lazy {question}",
    }
    arms = ["base", "task_reward", {"arm": "best_of_n", "of": 4}]
    path = recipe(tmp_path, tasks=[task], arms=arms, model={"path": "embedded"})
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert run(monkeypatch, "study", path, "--dry-run", "--seeds", "2", "--out", str(tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "data: train 5, validation 2, test 2" in said
    assert "1 row of train stands in test too" in said
    assert "small: 6 jobs" in said
    # base: 2 problems x (2 + 48); best of 4: 2 x 2 x 4; trained: 2 x 2 x 2 steps, 3 evaluations of 2, 2 tests of 2 x 2
    assert all(f" {8 * count:,}" in said for count in (100, 16, 8 + 6 + 8))
    assert f"{2 * 8 * (100 + 16 + 22):,} tokens at most; how long that takes is not known" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_a_run_that_began_tells_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = JobDir.of(tmp_path / "run", "lazy-sum", "task reward", 0)
    job.path.mkdir(parents=True)
    append_line(
        job.metrics, {"step": 0, "seconds": {"rollout": 1.5, "update": 0.5}, "tokens": {"rollout": 20, "update": 20}}
    )
    capsys.readouterr()
    assert run(monkeypatch, "study", recipe(tmp_path), "--dry-run", "--out", str(tmp_path / "run")) == 0
    assert "at 10 a second, as in the run folder so far, 0:0" in capsys.readouterr().out


def test_a_dry_run_tells_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"task": "data", "train": str(tmp_path / "none.jsonl"), "test": str(tmp_path / "no.jsonl")}
    path = recipe(tmp_path, tasks=[task], model={"path": str(tmp_path / "nowhere" / "model")})
    assert run(monkeypatch, "study", path, "--dry-run") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def begun(tmp_path: Path) -> Path:
    """A study of five jobs: one done, one failed, one in training with an alarm, one begun, one waiting."""
    out = tmp_path / "run"
    arms = ["base", "sharpening", "task_reward", {"arm": "beam"}, "greedy"]
    path = recipe(tmp_path, arms=arms, train=SMALL["train"] | {"steps": 40})
    read = load_recipe(path)
    facts = {"lazy-sum": {"test": {"problems": 2, "sha256": ""}}}
    made = [{"command": [], "versions": {}, "python": "3", "machine": "m", "commit": None}]
    out.mkdir()
    names = [arm.name for arm in read.arms]
    about = {"recipe": read.model_dump(mode="json"), "arms": names, "seeds": 1, "data": facts, "made": made}
    write_json(out / "study.json", about)
    done, failed, training, drawing, _ = (JobDir.of(out, "lazy-sum", name, 0) for name in names)
    for job in (done, failed, training, drawing):
        job.path.mkdir(parents=True)
    write_json(done.result, {"trained": False})
    write_json(failed.failed, {"error": "the gradient is not finite"})
    for step in range(20):
        line: dict[str, Any] = {
            "step": step,
            "length": 20.0 if step < 10 else 1.0,
            "seconds": {"rollout": 2.0, "update": 1.0},
        }
        append_line(training.metrics, line)
    return out


def test_the_status_of_a_run_tells_where_each_job_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun(tmp_path)
    before = sorted(out.rglob("*"))
    found = told(monkeypatch, capsys, "status", str(out))
    assert [job["state"] for job in found["jobs"]] == ["done", "failed", "training", "begun", "waiting"]
    training = found["jobs"][2]
    assert (training["step"], training["of"], training["left"]) == (20, 40, pytest.approx(60))
    assert training["rate"] == pytest.approx(1 / 3)
    assert any("length collapse" in alarm for alarm in training["alarms"])
    assert found["jobs"][1]["why"] == "the gradient is not finite"
    assert run(monkeypatch, "status", str(out)) == 0
    said = capsys.readouterr().out
    assert "20 of 40" in said
    assert "0:01:00" in said
    assert "the gradient is not finite" in said
    assert sorted(out.rglob("*")) == before


def test_a_status_imports_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", *PROGRAM, "status", str(begun(tmp_path))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "tiltlab.report.status" in imported
    assert not {"torch", "transformers"} & imported


def test_a_finished_run_is_done_in_every_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert run(monkeypatch, "study", recipe(tmp_path), "--out", out, "--jobs", "1") == 0
    found = told(monkeypatch, capsys, "status", out)
    assert {(job["arm"], job["state"], job["step"]) for job in found["jobs"]} == {
        ("base", "done", None),
        ("task reward", "done", 2),
    }
    assert read_lines(JobDir.of(tmp_path / "run", "lazy-sum", "task reward", 0).metrics)[-1]["seconds"]
    assert json.dumps(found)


def test_what_is_no_run_has_no_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", str(tmp_path)) == 2
    assert "there is no study.json" in capsys.readouterr().err


def test_the_status_of_an_evaluation_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    drawn = ["evaluate", "--task", "lazy-sum", "-n", "2", "--limit", "20", "--max-tokens", "4", "--out", str(out)]
    assert run(monkeypatch, *drawn) == 0
    found = told(monkeypatch, capsys, "status", str(out))
    assert (found["task"], found["sampler"], found["state"]) == ("lazy-sum", "base", "done")
    assert (found["problems"], found["of"], found["responses"], found["left"]) == (20, 20, 40, None)
    about, lots = read_json(out / "sample.json"), (out / "lots.jsonl").read_text().splitlines(keepends=True)
    write_json(out / "sample.json", {key: about[key] for key in about if key not in ("info", "questions")})
    (out / "lots.jsonl").write_text(lots[0])
    keep_first(out / "records.jsonl", 32)
    assert told(monkeypatch, capsys, "status", str(out))["state"] == "stopped"
    (out / "place.json").unlink()  # as an older version has it
    found = told(monkeypatch, capsys, "status", str(out))
    assert (found["state"], found["problems"], found["of"], found["responses"]) == ("drawing", 16, 20, 32)
    assert found["left"] == pytest.approx(json.loads(lots[0])["seconds"] / 4)
    before = sorted(out.rglob("*"))
    assert run(monkeypatch, "status", str(out)) == 0
    assert "lazy-sum / base: drawing, 16 of 20 problems, 32 responses, about 0:00:0" in capsys.readouterr().out
    assert sorted(out.rglob("*")) == before
    (out / "sample.json").write_text("{}")
    assert run(monkeypatch, "status", str(out)) == 2
    assert "sample.json has no made" in capsys.readouterr().err


def test_responses_of_another_engine_have_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data(tmp_path / "r.jsonl", *({"problem": p.id, "text": "7"} for p in Sums("noisy-sum").problems("test")[:3]))
    options = ["--task", "noisy-sum", "--responses", file, "--out", str(tmp_path / "out")]
    assert run(monkeypatch, "evaluate", *options) == 0
    found = told(monkeypatch, capsys, "status", str(tmp_path / "out"))
    assert (found["state"], found["problems"], found["responses"], found["sampler"]) == ("done", 3, 3, None)
