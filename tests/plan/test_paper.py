"""The paper's recipes, planned: what fits one H100 and four, and what is refused."""

from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tiltlab.config.recipe import load_recipe
from tiltlab.plan.cards import card
from tiltlab.plan.outcome import Plan
from tiltlab.plan.plan import plan_study

PAPER = sorted(Path("recipes/paper").glob("*b.yaml"))


def plan(path: Path, *changes: str, gpu: str = "h100", gpus: int = 1) -> Plan:
    return plan_study(load_recipe(str(path), changes), card(gpu), gpus=gpus)


@pytest.mark.parametrize("path", PAPER, ids=[path.stem for path in PAPER])
def test_the_papers_recipes_fit_an_h100_and_four_take_four_jobs(path: Path) -> None:
    one, four = plan(path), plan(path, gpus=4)
    assert one.fits
    assert four.fits
    assert one.checkpointing  # auto: a group of full length has no room otherwise
    assert not one.notes  # every test set's size is known without the hub
    assert [(way.jobs, way.gpus, way.fits) for way in four.ways] == [(4, 1, True), (2, 2, True), (1, 4, True)]
    assert {line.source for line in one.times} == {"assumed"}
    trains = next(line.seconds for line in one.times if line.what == "a job that trains")
    assert trains > 0.9 * load_recipe(str(path)).train.steps * sum(line.seconds for line in one.times[:3])
    hours = four.ways[0].hours
    assert hours is not None
    assert one.times[-1].seconds / 3600 / 4 <= hours < one.times[-1].seconds / 3600 / 4 + trains / 3600


def test_what_scale_says_does_not_fit_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """22 or 20 bytes a weight: 4 B weights with their moments do not fit a card of 80 GB."""
    (path,) = (path for path in PAPER if "qwen3" in path.stem)
    assert run(monkeypatch, "plan", str(path), "--gpu", "h100", "--set", "train.optimizer.state=device") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "its update takes" in line
    assert "it fits with --set train.optimizer.state=host, or" in line
    assert run(monkeypatch, "plan", str(path), "--gpu", "4090") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "model.lora" in line


def test_an_evening_on_a_small_card_fits_it() -> None:
    assert plan(Path("recipes/paper/one-evening.yaml"), gpu="4090").fits
