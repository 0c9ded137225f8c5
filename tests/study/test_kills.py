"""kill -9 at moments drawn by a seed, each time followed by the same command: all files end as if nothing had happened.

Moments are counted in changes of the folder, the half-written files in it included. TILTLAB_KILLS=40 has 40 kills of
each command instead of a few; where a run ends before its moment comes, another one begins.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command
from tests.study.test_study import STUDY

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TILTLAB_KILLS", "2"))

ADAPTERS: dict[str, Any] = STUDY | {
    "model": {"path": "embedded", "lora": {"rank": 4}},
    "arms": ["base", "task_reward", {"arm": "sharpening"}],
    "train": STUDY["train"] | {"steps": 6, "prompts": 2, "responses": 3, "max_tokens": 16},
    "validation": {"every": 2, "problems": 4, "n": 1},
}


def evaluate(out: Path) -> list[str]:
    settings = ["--model", "embedded", "--task", "lazy-sum", "-n", "4", "--limit", "64", "--max-tokens", "32"]
    return ["evaluate", *settings, "--out", str(out)]


def study(out: Path, jobs: int = 2) -> list[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(ADAPTERS))
    return ["study", str(recipe), "--jobs", str(jobs), "--out", str(out)]


def finish(arguments: list[str]) -> None:
    command = Command(*arguments)
    assert command.ended(600) == 0, command.said()


def entries(folder: Path) -> set[tuple[Path, int, int]]:
    """What a folder holds at this moment; files may vanish while one looks."""
    found = set()
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                about = path.stat()
                found.add((path, about.st_size, about.st_mtime_ns))
    return found


def killed_after(changes: int, arguments: list[str], folder: Path, all_at_once: bool) -> bool:
    """Whether the command was killed once it had changed its folder so many times; False: it ended before.

    all_at_once: its workers too, in the middle of what they do; else they find out that it is gone.
    """
    process = Command(*arguments)
    before = entries(folder)
    while changes and process.poll() is None:
        time.sleep(0.01)
        now = entries(folder)
        changes -= now != before
        before = now
    if process.poll() is None:
        (os.killpg if all_at_once else os.kill)(process.pid, signal.SIGKILL)  # a group of its own
    code = process.ended(60)
    assert code in (0, -signal.SIGKILL), process.said()
    return code != 0


def without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_clocks(inner) for key, inner in value.items() if key not in ("seconds", "made")}
    return value


def contents(folder: Path) -> dict[str, Any]:
    """All files, but for locks, the page (it tells the seconds), and what else tells of clocks and commands."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name.startswith(".") or path.suffix == ".html":
            continue
        if path.suffix == ".jsonl":
            found[name] = [without_clocks(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name in ("study.json", "sample.json", "place.json") or path.name.startswith("sampling-"):
            found[name] = without_clocks(json.loads(path.read_text()))
        elif path.name == "README.md":
            found[name] = [line for line in path.read_text().splitlines() if not line.startswith("Command:")]
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.timeout(300 + 120 * KILLS)
@pytest.mark.parametrize(
    ("command", "undisturbed", "moments"), [(evaluate, evaluate, 12), (study, partial(study, jobs=1), 60)]
)
def test_killed_at_random_moments_it_ends_the_same(
    command: Callable[[Path], list[str]], undisturbed: Callable[[Path], list[str]], moments: int, tmp_path: Path
) -> None:
    finish(undisturbed(tmp_path / "undisturbed"))
    expected = contents(tmp_path / "undisturbed")
    random_moment = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"run-{runs}"
        arguments = command(folder)
        while kills < KILLS and killed_after(
            random_moment.randint(1, moments), arguments, folder, random_moment.random() < 0.5
        ):
            kills += 1
        finish(undisturbed(folder))
        assert contents(folder) == expected, f"after {kills} kills, in run {runs}"
        runs += 1
