"""Metrics in a dashboard: every line once, and no training ends for it. Trackers are stood in for."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tiltlab.errors import UserError
from tiltlab.storage.files import append_line, keep_first
from tiltlab.storage.run_folder import JobDir
from tiltlab.study import tracking
from tiltlab.study.tracking import Mirror, flat

KEY = "lazy-sum / sharpening / seed 0"


class Run:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Run]]:
    """What a stand-in for trackio and wandb was asked for."""
    made: list[tuple[dict[str, Any], Run]] = []

    def init(**asked: Any) -> Run:
        made.append((asked, Run()))
        return made[-1][1]

    for name in ("trackio", "wandb"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init))
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    return made


def made(folder: Path) -> JobDir:
    (folder / "job").mkdir()
    return JobDir(folder / "job")


def mirror(folder: Path, kind: Any = "trackio") -> Mirror:
    return Mirror(kind, folder, "sums", {"name": "sums"}, pytest.fail)


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_each_line_is_passed_on_once_also_after_a_restart(kind: str, tmp_path: Path, runs: Any) -> None:
    job = made(tmp_path)
    append_line(job.validation, {"step": 0, "accuracy": 0.4})
    first = mirror(tmp_path, kind)
    for step in range(4):
        append_line(job.metrics, {"step": step, "reward": 0.1 * step})
        first.look(KEY, job, ended=False)
    keep_first(job.metrics, 2)  # killed, and taken up at its checkpoint
    second = mirror(tmp_path, kind)
    for step in range(2, 6):
        append_line(job.metrics, {"step": step, "reward": 0.1 * step})
        second.look(KEY, job, ended=step == 5)
    (asked, one), (_, other) = runs
    assert asked["project"] == "sums"
    assert asked["name"] == KEY
    assert asked["config"] == {"name": "sums"}
    train = [step for step, values in one.logged + other.logged if "train/reward" in values]
    assert train == [1, 2, 3, 4, 5, 6]
    assert [(step, values) for step, values in one.logged if "validation/accuracy" in values] == [
        (0, {"validation/accuracy": 0.4})
    ]
    assert other.finished


def test_only_finite_numbers_are_passed_on() -> None:
    line = {"step": 3, "reward": float("nan"), "kl": 1, "seconds": {"rollout": 0.5}, "note": "x"}
    assert flat(line, "train") == {"train/kl": 1.0, "train/seconds/rollout": 0.5}


def test_a_tracker_that_fails_is_told_of_once(tmp_path: Path, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(Run, "log", down)
    told: list[str] = []
    one = Mirror("wandb", tmp_path, "p", {}, told.append)
    job = made(tmp_path)
    append_line(job.metrics, {"step": 0, "reward": 1.0})
    for _ in range(3):
        one.look(KEY, job, ended=False)
    assert told == ["wandb failed and is left alone; metrics.jsonl has all (no route to host)"]


def test_tensorboard_has_a_folder_a_job(tmp_path: Path, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((self.folder, name, value, step))

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    job = made(tmp_path)
    append_line(job.metrics, {"step": 0, "reward": 1.0})
    mirror(tmp_path, "tensorboard").look(KEY, job, ended=True)
    folder = str(tmp_path / "tensorboard" / "lazy-sum" / "sharpening" / "seed 0")
    assert scalars == [(folder, "train/reward", 1.0, 1)]


def test_what_is_not_there_is_refused_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        mirror(tmp_path, "wandb")
    with pytest.raises(UserError, match="trackio, wandb, tensorboard"):
        mirror(tmp_path, "mlflow")
    assert not list(tmp_path.iterdir())
