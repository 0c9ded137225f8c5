"""Studies whose responses another engine draws: it comes to the same, and nothing of it is left behind."""

import copy
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import run as command
from tests.study.test_resume import SMALL, STOP
from tests.study.test_study import essence
from tiltlab.config.engine import EngineConfig
from tiltlab.config.recipe import Recipe
from tiltlab.engines import make
from tiltlab.errors import Stopped, UserError
from tiltlab.models.engine import Drawn, Replica, Request, Weights
from tiltlab.models.hf import HFModel
from tiltlab.storage.files import read_json, read_lines
from tiltlab.study.job import Work
from tiltlab.study.run import run_job
from tiltlab.study.study import plan
from tiltlab.training.importance import Correction

pytestmark = pytest.mark.slow

ARMS = ["base", {"arm": "temperature", "temperature": 0.5}, {"arm": "tempered", "alpha": 4}]
STUDY = SMALL | {"arms": ARMS, "train": SMALL["train"] | {"max_tokens": 40, "responses": 4}}
OTHER = {"name": "vllm", "correction": {"over": "nothing"}}


class Copy(Replica):
    """The plainest engine, in place of vLLM."""

    made: list["Copy"] = []  # noqa: RUF012

    def __init__(self, config: EngineConfig, model: HFModel) -> None:
        same = HFModel(copy.deepcopy(model.module).requires_grad_(False), model.codec, batch_tokens=model.batch_tokens)
        super().__init__(same)
        self.updates, self.closed = 0, 0
        Copy.made.append(self)

    def update(self, weights: Weights, version: int) -> None:
        self.updates += 1
        super().update(weights, version)

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        assert not self.closed
        return super().draw(requests_N, temperature, ignore_eos=ignore_eos)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def _in_place_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    Copy.made = []
    monkeypatch.setattr(make, "engine_for", Copy)


def ran(run: Path, stop: int | None = None, **changes: Any) -> list[str]:
    """All jobs of the study, one after another, to their end or to a stop in training; what was news."""
    told: list[tuple[Any, ...]] = []

    def stopping() -> bool:
        return bool(told) and told[-1][:2] == ("training", stop)

    recipe = Recipe.model_validate(STUDY | changes)
    for job in plan(recipe, 1):
        run_job(Work(job, recipe, job.folder(run), lambda *news: told.append(news), stopping))
    return [line[3] for line in told if len(line) > 3 and line[3]]


def closed() -> bool:
    """Whether every engine was closed, once."""
    return bool(Copy.made) and all(engine.closed == 1 for engine in Copy.made)


def test_a_copy_as_engine_makes_the_same_study(tmp_path: Path) -> None:
    """Trained and sampled arms, metrics, records, checkpoints' states and results, all but clocks."""
    ran(tmp_path / "hf")
    assert Copy.made == []
    ran(tmp_path / "copy", engine=OTHER)
    assert essence(tmp_path / "copy") == essence(tmp_path / "hf")
    assert closed()
    assert [engine.updates for engine in Copy.made] == [6, 1, 1]  # at the start, after each step, the best


def test_stopped_and_gone_on_with_it_ends_the_same(tmp_path: Path) -> None:
    ran(tmp_path / "straight", engine=OTHER)
    with pytest.raises(Stopped):
        ran(tmp_path / "stopped", STOP, engine=OTHER)
    assert closed()
    ran(tmp_path / "stopped", engine=OTHER)
    assert essence(tmp_path / "stopped") == essence(tmp_path / "straight")
    assert closed()


@pytest.mark.parametrize("error", [RuntimeError("the engine died"), UserError("engine gone")], ids=["bug", "user"])
def test_an_engine_that_breaks_off_is_closed_and_told(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Copy, weights: Weights, version: int) -> None:
        raise error

    monkeypatch.setattr(Copy, "update", broken)
    if isinstance(error, UserError):
        with pytest.raises(UserError, match="engine gone"):
            ran(tmp_path, engine=OTHER, arms=["task_reward"])
    else:
        ran(tmp_path, engine=OTHER, arms=["task_reward"])
        (failed,) = tmp_path.rglob("failed.json")
        assert read_json(failed)["error"] == "RuntimeError: the engine died"
    assert closed()


def test_the_recipes_correction_reaches_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Correction] = []
    weights = Correction.weights
    monkeypatch.setattr(Correction, "weights", lambda self, ratio: seen.append(self) or weights(self, ratio))
    arms = {"arms": ["task_reward"]}
    ran(tmp_path / "a", engine="vllm", **arms)
    ran(tmp_path / "b", engine={"name": "vllm", "correction": {"over": "token", "cap": 3}}, **arms)
    ran(tmp_path / "c", **arms)
    assert list(dict.fromkeys(seen)) == [Correction("response", 2), Correction("token", 3), Correction("nothing")]


def test_stale_weights_end_a_run_that_stops_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self: Copy, weights: Weights, version: int) -> None:
        if self.version < 0:
            Replica.update(self, weights, version)
        self.version = version

    monkeypatch.setattr(Copy, "update", stale)
    train = STUDY["train"] | {"stop_on": ["sampler mismatch"]}
    news = ran(tmp_path, engine=OTHER, arms=[{"arm": "tempered", "alpha": 4}], train=train)
    (result,) = tmp_path.rglob("result.json")
    assert read_json(result)["step"] == 2
    assert read_json(result)["stopped"].startswith("sampler mismatch at step 2: what drew the responses and the train")
    assert any("alarm: sampler mismatch at step 2" in line for line in news)
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    assert [line["mismatch_mean"] > 1e-4 for line in read_lines(metrics)] == [False, True]


def test_an_engine_that_is_not_installed_is_one_line_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert command(monkeypatch, "study", "--out", str(tmp_path / "run"), "--set", "engine=vllm") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "vLLM is not installed" in said
    assert "set engine.name to hf" in said
    assert not (tmp_path / "run").exists()
