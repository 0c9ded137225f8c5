"""Run folders and recipes of before the validation split was called so: it was called select."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_cli import run
from tests.study.test_study import STUDY, essence
from tiltlab.report.load import load_study
from tiltlab.report.tables import result_rows
from tiltlab.seeds import derive, split_key
from tiltlab.storage.files import read_json, write_json

pytestmark = pytest.mark.slow

ARMS = {"arms": ["base", "task_reward"]}


def in_old_words(about: dict[str, Any]) -> dict[str, Any]:
    """A study.json as it was then, with a note in the words of then."""

    def old(values: dict[str, Any]) -> dict[str, Any]:
        return {"select" if key == "validation" else key: value for key, value in values.items()}

    recipe = old(about["recipe"]) | {"tasks": [old(task) for task in about["recipe"]["tasks"]]}
    data = {task: old(splits) for task, splits in about["data"].items()}
    for splits in data.values():
        splits["train"] = splits["train"] | {"notes": ["1 row of train stands in select too, and was left out: twin"]}
    return about | {"recipe": recipe, "data": data}


def test_an_old_study_is_read_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its own recipe, or by the same in the words of now."""
    new, old = tmp_path / "new.yaml", tmp_path / "old.yaml"
    new.write_text(yaml.safe_dump(STUDY | ARMS))
    assert run(monkeypatch, "study", str(new), "--out", str(tmp_path / "new"), "--jobs", "1") == 0
    assert "old name" not in capsys.readouterr().err
    about = in_old_words(read_json(tmp_path / "new" / "study.json"))
    old.write_text(yaml.safe_dump(about["recipe"]))
    for recipe in (old, new):
        out = tmp_path / f"begun, {recipe.stem}"
        shutil.copytree(tmp_path / "new", out)
        write_json(out / "study.json", about)
        assert result_rows(load_study(out)) == result_rows(load_study(tmp_path / "new"))
        shutil.rmtree(out / "cells" / "lazy-sum" / "task-reward")
        assert run(monkeypatch, "study", str(recipe), "--out", str(out), "--jobs", "1") == 0
        assert capsys.readouterr().err.count("`select` is called `validation` now") == (recipe == old)
        assert essence(out) == essence(tmp_path / "new")
        assert list(read_json(out / "study.json")["data"]["lazy-sum"]) == ["train", "validation", "test"]


def test_the_validation_split_draws_what_it_always_drew() -> None:
    assert [derive(3, split_key(split)) for split in ("validation", "test")] == [derive(3, "select"), derive(3, "test")]
