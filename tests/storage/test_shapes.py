"""A file of a run folder that is damaged is named in one line, whatever the damage; nothing else comes of it."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.config.test_recipe import SMALL
from tiltlab.cli.main import app
from tiltlab.config.recipe import Recipe
from tiltlab.errors import UserError
from tiltlab.study.study import run_study

ARMS = ["base", "task_reward", {"arm": "power_smc", "alpha": 2}]
ODD = [None, True, -1, 10**30, 1e308, float("nan"), float("-inf"), "x", "", "\ud800", [], {}, [1], {"a": [1]}, 0.5]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study and an evaluation, both finished."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = Recipe.model_validate(SMALL | {"arms": ARMS})
    run_study(recipe, folder / "run", seeds=1, jobs=1, devices=["cpu"], on_progress=lambda *_: None)
    small = ["evaluate", "--task", "lazy-sum", "-n", "2", "--limit", "3", "--max-tokens", "8", "--out"]
    assert CliRunner().invoke(app, [*small, str(folder / "evaluated")]).exit_code == 0
    return folder


def everywhere(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    """A change to every JSON object of a file, as text."""

    def changed(text: str) -> str:
        if text.startswith("{\n"):  # one object, over many lines
            return json.dumps(change(json.loads(text)))
        return "".join(json.dumps(change(json.loads(line))) + "\n" for line in text.splitlines())

    return changed


def leaves(value: Any, odd: Callable[[Any], Any]) -> Any:
    """The same tree with another value in every leaf."""
    if isinstance(value, dict):
        return {key: leaves(inner, odd) for key, inner in value.items()}
    return [leaves(inner, odd) for inner in value] if isinstance(value, list) and value else odd(value)


def swapped(value: Any) -> Any:
    return 7 if isinstance(value, str) else "x"


REFUSED: dict[str, Callable[[str], str]] = {
    "no object": lambda text: "[]\n",
    "a number": lambda text: "7\n",
    "no JSON": lambda text: "not JSON\n",
    "an empty object": lambda text: "{}\n",
    "half": lambda text: text[: len(text) // 2 - 5],
    "cut off": lambda text: text[:-3],
    "binary": lambda text: "\udc80\udcff\0" * 50,
    "text for numbers": everywhere(lambda found: leaves(found, swapped)),
    "all lists": everywhere(lambda found: {key: [] for key in found}),
    "all mappings": everywhere(lambda found: {key: {"a": 1} for key in found}),
    "all null": everywhere(lambda found: dict.fromkeys(found)),
    "all huge": everywhere(lambda found: leaves(found, lambda _: 10**400)),
    "another's keys": everywhere(lambda found: {f"{key}2": value for key, value in found.items()}),
}
EITHER: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "twice": lambda text: text + text,
    "backwards": lambda text: "\n".join(text.splitlines()[::-1]) + "\n",
    "without its first line": lambda text: "".join(text.splitlines(keepends=True)[1:]),
}


def files(whole: Path) -> list[Path]:
    """Those that a report reads."""
    found = [path for path in sorted(whole.rglob("*.json*")) if "checkpoints" not in path.parts]
    return [path for path in found if path.name not in ("lots.jsonl", "ids.jsonl", "tokens-best.jsonl", "place.json")]


def one_of_each_name(whole: Path, turn: int) -> list[Path]:
    """Of the files with one name, which all arms have, another one each turn."""
    found: dict[str, list[Path]] = {}
    for path in files(whole):
        found.setdefault(path.name, []).append(path)
    return [paths[turn % len(paths)] for paths in found.values()]


def reported(folder: Path, path: Path) -> Exception | None:
    """What `report` says of the study or evaluation that a file belongs to: nothing, or what it raised."""
    run = "evaluated" if "evaluated" in path.parts else "run"
    error = CliRunner().invoke(app, ["report", str(folder / run)]).exception
    assert error is None or isinstance(error, UserError), (path, error)
    assert "\n" not in str(error or "")
    return error


@pytest.mark.slow
@pytest.mark.parametrize(("turn", "harm"), [*enumerate([*REFUSED, *EITHER, "missing", "a folder"])])
def test_a_damaged_file_is_named(turn: int, harm: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    assert len(files(folder)) >= 18
    for path in one_of_each_name(folder, turn):
        kept = path.read_bytes()
        if harm in ("missing", "a folder"):
            path.unlink()
            if harm == "a folder":
                path.mkdir()
        else:
            text = (REFUSED | EITHER)[harm](kept.decode())
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
        error = reported(folder, path)
        if harm in REFUSED or harm == "a folder":
            assert error is not None, path
        if error:
            assert path.name in str(error) or harm == "missing", (path, error)
            assert ";" in str(error) or harm in ("missing", "a folder")  # what to do
        if path.is_dir():
            path.rmdir()
        path.write_bytes(kept)
    assert reported(folder, folder / "run") is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_odd_value_ends_in_a_traceback(seed: int, whole: Path, tmp_path: Path) -> None:
    folder, chance = tmp_path / "copy", random.Random(seed)
    shutil.copytree(whole, folder)
    for path in files(folder):
        kept = path.read_bytes()
        texts = kept.decode().splitlines() if path.suffix == ".jsonl" else [kept.decode()]
        lines = [json.loads(text) for text in texts]
        place: Any = chance.choice(lines)
        while True:
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
            if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.3:
                break
            place = place[key]
        place[key] = chance.choice(ODD)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        reported(folder, path)
        path.write_bytes(kept)


@pytest.mark.parametrize("name", ["records.jsonl", "tokens.jsonl", "sample.json"])
@pytest.mark.parametrize("harm", ["no object", "half", "binary", "text for numbers", "all null"])
def test_forecasts_verdicts_comparisons_and_evaluations_name_it_too(
    name: str, harm: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    path = folder / "evaluated" / name
    path.write_bytes(REFUSED[harm](path.read_text()).encode("utf-8", "surrogateescape"))
    study = folder / "run" / "study.json"
    study.write_bytes(REFUSED[harm](study.read_text()).encode("utf-8", "surrogateescape"))
    fine, damaged, out = str(whole / "evaluated"), str(folder / "evaluated"), ["--out", str(tmp_path / "out")]
    again = ["evaluate", "--task", "lazy-sum", "-n", "2", "--limit", "3", "--max-tokens", "8", "--out", damaged]
    commands = [
        ["forecast", "--base", damaged, *out],
        ["verdict", "--base", damaged, "--tuned", fine, *out],
        ["verdict", "--base", fine, "--tuned", damaged, *out],
        ["compare", str(whole / "run"), str(folder / "run"), *out],
        again,
    ]
    for command in commands:
        error = CliRunner().invoke(app, command).exception
        assert error is None or isinstance(error, UserError), (command, error)
        assert "\n" not in str(error or "")


def test_lost_records_are_missed(whole: Path, tmp_path: Path) -> None:
    """A file cut off at the end of a line looks whole."""
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    for path in (path for path in files(folder) if path.name.startswith(("records-last", "records-best", "records."))):
        kept = path.read_text()
        path.write_text("".join(kept.splitlines(keepends=True)[:-1]))
        assert f"{path.name} holds" in str(reported(folder, path))
        path.write_text(kept)
