"""A chat template that writes the date has one date for one run, kept in its folder and said aloud; one that fails, or
a model that cannot be loaded, leaves no folder behind."""

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_cli import run
from tests.config.test_recipe import SMALL, recipe
from tests.models import tiny
from tests.models.test_codec import CLOCK, LETTERS
from tiltlab.models.loading import ModelConfig
from tiltlab.storage.files import read_json, read_lines, write_json
from tiltlab.tasks.dataset import Data
from tiltlab.verdict.inputs import from_models

OLD = "2020-01-02"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, `m`, whose chat template writes the date, and two problems, `test.jsonl`."""
    place = tmp_path_factory.mktemp("place")
    tokenizer = tiny.tokenizer(LETTERS)
    tokenizer.chat_template = CLOCK
    tokenizer.save_pretrained(place / "m")
    tiny.llama(len(LETTERS) + 1).save_pretrained(place / "m")
    rows = [{"problem": "ab", "answer": "1"}, {"problem": "cd", "answer": "2"}]
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def study(place: Path, tmp_path: Path, **model: Any) -> str:
    task = {"task": "data", "test": str(place / "test.jsonl"), "template": "{question}", "grader": "number"}
    changes = {"model": {"path": str(place / "m"), "device": "cpu"} | model, "tasks": [task], "arms": ["base"]}
    return recipe(tmp_path, **changes, train=SMALL["train"] | {"max_tokens": 8})


def responses(path: Path) -> list[tuple[str, float]]:
    return [(line["text"], line["logp"]) for line in read_lines(path)]


@pytest.mark.slow
def test_a_study_keeps_the_date_of_its_first_day(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, then = study(place, tmp_path), tmp_path / "out", tmp_path / "then"
    assert run(monkeypatch, "study", path, "--out", str(out), "--jobs", "1") == 0
    today = read_json(out / "study.json")["date"]
    assert abs(dt.date.fromisoformat(today) - dt.date.today()) <= dt.timedelta(days=1)
    assert f"the chat template writes the date: it is {today} in all prompts" in capsys.readouterr().err
    write_json(out / "study.json", read_json(out / "study.json") | {"date": OLD})  # begun long ago
    assert run(monkeypatch, "study", path, "--out", str(out), "--seeds", "2", "--jobs", "1") == 0
    assert read_json(out / "study.json")["date"] == OLD
    assert f"it is {OLD} in all prompts" in capsys.readouterr().err
    path = study(place, tmp_path, date=OLD)
    assert run(monkeypatch, "study", path, "--out", str(then), "--seeds", "2", "--jobs", "2") == 0
    kept, made = (Path("cells") / "data" / "base" / f"seed-{seed}" / "records-last.jsonl" for seed in (0, 1))
    assert responses(out / made) == responses(then / made)
    assert responses(out / kept) != responses(then / kept)  # of the first day, whose prompts were others


def evaluation(place: Path, tmp_path: Path, **model: Any) -> str:
    task = {"task": "data", "test": str(place / "test.jsonl"), "template": "{question}", "grader": "number"}
    asked = {"model": {"path": str(place / "m"), "device": "cpu"} | model, "task": task, "sampler": "base"}
    path = tmp_path / "evaluation.yaml"
    path.write_text(yaml.safe_dump(asked | {"n": 4, "max_tokens": 8}))
    return str(path)


def test_an_evaluation_keeps_the_date_of_its_first_day(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, then = tmp_path / "out", tmp_path / "then"
    path = evaluation(place, tmp_path)
    assert run(monkeypatch, "evaluate", path, "--out", str(out)) == 0
    assert f"it is {read_json(out / 'sample.json')['date']} in all prompts" in capsys.readouterr().err
    first = responses(out / "records.jsonl")
    write_json(out / "sample.json", read_json(out / "sample.json") | {"date": OLD})
    for name in ("lots.jsonl", "records.jsonl", "tokens.jsonl"):  # as if stopped before its first lot, long ago
        (out / name).unlink()
    assert run(monkeypatch, "evaluate", path, "--out", str(out)) == 0
    assert read_json(out / "sample.json")["date"] == OLD
    assert run(monkeypatch, "evaluate", evaluation(place, tmp_path, date=OLD), "--out", str(then)) == 0
    assert responses(out / "records.jsonl") == responses(then / "records.jsonl") != first


def test_a_date_that_is_none_is_told_in_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for date in ("soon", 5, [1]):
        write_json(tmp_path / "out" / "sample.json", {"date": date})
        assert run(monkeypatch, "evaluate", evaluation(place, tmp_path), "--out", str(tmp_path / "out")) == 2
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert re.search("sample.json: .* is no date", said)


def test_a_verdict_tells_of_the_models_templates(place: Path) -> None:
    task = Data("data", test=str(place / "test.jsonl"), template="{question}", grader="number")
    base = ModelConfig(path=str(place / "m"), device="cpu", date=dt.date.fromisoformat(OLD))
    said: list[str] = []
    settings: dict[str, Any] = {"problems": None, "n": 4, "max_tokens": 8, "seed": 0}
    from_models(base, base.path, task, **settings, on_note=said.append)
    assert said
    assert all(f"it is {OLD} in all prompts" in note for note in said)


def test_an_evaluation_of_a_model_that_cannot_be_loaded_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "m", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"nothing")
    path = evaluation(place, tmp_path, path=str(tmp_path / "m"))
    assert run(monkeypatch, "evaluate", path, "--out", str(tmp_path / "out")) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('a system message is needed') }}", "a system message is needed"),
        ("{{ missing.part }}", "UndefinedError"),
    ],
)
def test_a_study_whose_template_fails_leaves_nothing(
    place: Path,
    tmp_path: Path,
    template: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(place / "m", tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    path = study(place, tmp_path, path=str(tmp_path / "m"))
    assert run(monkeypatch, "study", path, "--out", str(tmp_path / "out"), "--jobs", "1") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert not (tmp_path / "out").exists()


def test_max_tokens_beyond_the_context_names_the_key(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study(place, tmp_path)
    assert run(monkeypatch, "study", path, "--out", str(tmp_path / "out"), "--set", "train.max_tokens=64") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert re.search("max_tokens 64 do not fit the context", said)
    assert not (tmp_path / "out").exists()
