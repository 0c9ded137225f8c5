"""`tiltlab plan --gpus`: many jobs at once, or more GPUs a job; what that takes, and when it is for verl."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.cli.test_cli import run
from tests.cli.test_output import told
from tests.config.test_recipe import recipe
from tests.models import tiny
from tests.plan.test_plan import PAPER, own_cache, paper
from tiltlab.config.recipe import load_recipe
from tiltlab.errors import UserError
from tiltlab.plan.cards import card
from tiltlab.plan.lasting import lasting
from tiltlab.plan.plan import require_room
from tiltlab.plan.rates import Measured, key_of, recalled, remember, way_of
from tiltlab.plan.shapes import Batch, Device
from tiltlab.plan.waiting import busiest
from tiltlab.storage.files import write_lines
from tiltlab.storage.run_folder import JobDir
from tiltlab.study.training import Training
from tiltlab.system.world import World

__all__ = ["own_cache"]


@pytest.mark.parametrize(
    ("seconds", "at_a_time", "wanted"),
    [([], 2, 0), ([3, 2, 2], 1, 7), ([3, 2, 2], 2, 4), ([3, 2, 2], 9, 3), ([1, 1, 1, 9], 2, 10)],
)
def test_work_is_begun_where_there_is_room(seconds: list[float], at_a_time: int, wanted: float) -> None:
    assert lasting(seconds, at_a_time) == wanted


def test_several_gpus_take_many_jobs_or_give_each_job_more(tmp_path: Path) -> None:
    one, four = paper(tmp_path), paper(tmp_path, gpus=4)
    assert not one.ways
    assert not four.fits  # a job on one of them
    many, two, all_ = four.ways
    assert [(way.jobs, way.gpus) for way in four.ways] == [(4, 1), (2, 2), (1, 4)]
    assert (many.rollout, many.update) == (four.rollout, four.update)
    assert all_.update.total() < two.update.total() < many.update.total()
    trains, base = (next(t.seconds for t in one.times if kind in t.what) / 3600 for kind in ("trains", "of base"))
    assert many.hours == many.longest == pytest.approx(trains)
    assert many.gpu_hours == pytest.approx(4 * trains)  # two GPUs have nothing to do, and are held
    assert trains + base == pytest.approx(one.times[-1].seconds / 3600)


def test_more_gpus_a_job_divide_what_is_computed_and_not_what_is_waited_for(tmp_path: Path) -> None:
    small = ["model.checkpointing=true", "model.decoding=plain"]
    one, *several = paper(tmp_path, *small, gpus=8).ways
    for way in several:
        for phase in ("reference", "update"):
            assert way.seconds[phase] == pytest.approx(one.seconds[phase] / way.gpus)
        moved = (2 + 4) * 3_212_749_824 * (way.gpus - 1) / way.gpus  # bf16 weights come, float32 gradients go
        assert way.seconds["exchange"] == pytest.approx(moved / (0.5 * 450e9))
        assert way.seconds["rollout"] >= 2048 * 28 * 0.9e-3  # a decoding step takes what it takes, however few rows
    assert "exchange" not in one.seconds
    assert several[-1].seconds["rollout"] < one.seconds["rollout"]


def test_ranks_wait_for_the_one_that_has_most(tmp_path: Path) -> None:
    five = paper(tmp_path, "model.checkpointing=true", gpus=5).ways[-1]
    one = paper(tmp_path, "model.checkpointing=true", gpus=5).ways[0]
    assert (five.gpus, five.groups) == (5, 7)  # of 32
    assert five.seconds["update"] == pytest.approx(one.seconds["update"] * 7 / 32)


@pytest.mark.parametrize(
    "alone", ["train.optimizer.state=8bit", "engine={name: vllm, device: 'cuda:1'}", "model.decoding=slots"]
)
def test_what_ranks_cannot_have_is_planned_for_jobs_on_one(tmp_path: Path, alone: str) -> None:
    plan = paper(tmp_path, "model.checkpointing=true", alone, gpus=4)
    assert [(way.jobs, way.gpus) for way in plan.ways] == [(4, 1)]
    assert any("a job has one GPU here" in note for note in plan.notes)


def test_a_recipe_that_gives_a_job_several_gpus_is_planned_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["model.path=Qwen/Qwen3-4B-Instruct-2507", "model.checkpointing=true"]
    one, four = paper(tmp_path, *large, gpus=4), paper(tmp_path, *large, "gpus=4")
    assert not one.fits
    assert four.fits
    assert (four.gpus, four.update) == (4, four.ways[-1].update)
    assert "--set gpus=2" in one.remedies
    assert paper(tmp_path, *large, "gpus=2").fits
    hours = {line.what: line.seconds / 3600 for line in four.times}
    assert four.ways[-1].gpu_hours == pytest.approx(hours["the study, 2 jobs, in device hours"])
    path = recipe(tmp_path, **PAPER | {"gpus": 4})
    assert run(monkeypatch, "plan", path, "--gpu", "h100", "--set", "model.checkpointing=true") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("memory in update, on each h100 of 4") == said.count("memory in update") == 1


def test_a_study_needs_room_for_a_rank_on_each_gpu_and_for_all_of_them_without_one(tmp_path: Path) -> None:
    large = ["model.path=Qwen/Qwen3-4B-Instruct-2507", "model.checkpointing=true"]
    asked = load_recipe(recipe(tmp_path, **PAPER | {"gpus": 4}), large)
    assert require_room(asked, card("h100"), 1) is None
    with pytest.raises(UserError, match="does not fit h100"):
        require_room(asked.model_copy(update={"gpus": 1}), card("h100"), 1)
    cpu = Device("CPU", 200 * 10**9, 200 * 10**9, None, None, is_gpu=False)
    assert require_room(asked.model_copy(update={"gpus": 1}), cpu, 1) is None
    assert "does not fit CPU" in str(require_room(asked, cpu, 1))


def test_what_ranks_measured_is_kept_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": 0, "ranks": 4, "seconds": {"rollout": 1.0}, "tokens": {"rollout": 40}}]
    lines += [{"step": 1, "ranks": 1, "seconds": {"rollout": 1.0}, "tokens": {"rollout": 10}}]
    read = load_recipe(recipe(tmp_path))
    job = JobDir(tmp_path)
    write_lines(job.metrics, lines)
    module = tiny.llama()
    training: Any = SimpleNamespace(recipe=read, folder=job, work=SimpleNamespace(world=World(0, 4)))
    training.reference = SimpleNamespace(module=module, device="cpu", checkpointing=False)
    Training._remember_rates(training)
    key = key_of(module.config, torch.float32, None)
    found = recalled(key, "CPU", way_of("hf", checkpointing=False, ranks=4))
    assert found is not None
    assert found.rates == {"rollout": 40.0}
    assert recalled(key, "CPU", way_of("hf", checkpointing=False)) is None


def test_unlike_lengths_cost_little_where_they_are_known() -> None:
    batch = Batch(32, 8, 1, 1)
    two, eight = busiest(batch, 2), busiest(batch, 8)
    for drawn, learnt in (two, eight):
        assert 1 < learnt < 1.06 < drawn
    assert eight[0] > two[0]
    assert eight[0] < 1.6
    assert busiest(Batch(4, 8, 1, 1), 8)[1] > 2  # half of the ranks have nothing
    assert busiest(batch, 8) == eight
    drawn, learnt = busiest(Batch(10**5, 10**5, 1, 1), 4)
    assert 1 <= learnt < drawn < 1.1


def test_rates_of_ranks_are_their_own(tmp_path: Path) -> None:
    key = paper(tmp_path).shape.key
    ways = {n: way_of("hf", checkpointing=True, ranks=n) for n in (1, 4)}
    assert len(set(ways.values())) == 2
    remember(Measured(key, "NVIDIA H100", ways[4], 3, {"rollout": 1e4, "reference": 1e5, "update": 2e4}))
    one, two, four = paper(tmp_path, "model.checkpointing=true", gpus=4).ways
    assert four.seconds == {
        "rollout": 52.4288,
        "reference": 5.24288,
        "update": 26.2144,
    }  # of which the exchange is part
    assert one.seconds["rollout"] != 52.4288
    assert "exchange" in two.seconds


def test_a_plan_for_several_gpus_says_how_they_are_had_and_what_is_for_verl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, **PAPER | {"arms": ["base", {"arm": "tilted", "beta": 0.01, "alpha": 1.25}]})
    settings = ["--gpu", "h100", "--set", "model.checkpointing=true"]
    assert run(monkeypatch, "plan", path, *settings, "--gpus", "8") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "memory in update of a job on 8 GPUs, on each" in said
    assert "a job on 8 GPUs: `gpus: 8` in the recipe, or `tiltlab study --gpus-per-run 8`" in said
    assert "the busiest of 8 GPUs draws 46% more tokens than the mean, and learns from 4% more" in said
    assert "verl" not in said
    assert run(monkeypatch, "plan", path, *settings, "--gpus", "16") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 x 8" in said
    assert "1 x 16" not in said
    assert "a job stays on one node (8 GPUs); one over all 16 is for verl" in said
    assert f"`tiltlab export verl {path} --arm 'tilted 0.01, alpha 1.25' --nodes 2 --out DIR`" in said
    assert run(monkeypatch, "plan", path, *settings, "--gpus", "16", "--gpus-per-node", "16") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 x 16" in said
    assert "verl" not in said
    assert run(monkeypatch, "plan", path, *settings, "--gpus", "12", "--gpus-per-node", "4") == 0
    assert "--nodes 3 --gpus 4 --out DIR" in " ".join(capsys.readouterr().out.split())


def test_ways_are_in_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, **PAPER)
    found = told(monkeypatch, capsys, "plan", path, "--gpu", "h200", "--gpus", "2")
    assert [(way["jobs"], way["gpus"]) for way in found["ways"]] == [(2, 1), (1, 2)]
    assert found["ways"][1]["gpu_hours"] == pytest.approx(2 * found["ways"][1]["hours"])
    unknown = told(monkeypatch, capsys, "plan", path, "--gpu", "200 GB", "--gpus", "2")
    assert [(way["seconds"], way["hours"]) for way in unknown["ways"]] == [({}, None), ({}, None)]


def test_the_page_on_scale_shows_what_the_plan_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("docs/scale.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ {4}tiltlab (plan .*)", page, re.MULTILINE)
    rows = [line.strip() for line in page.splitlines() if re.match(r" +\d x \d  ", line)]
    assert len(rows) == 4
    assert run(monkeypatch, *command.split()) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row not in said] == []
