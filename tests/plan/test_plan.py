"""`tiltlab plan`, and the plan that a study makes first: from a config alone, and refused where it cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_cli import run
from tests.cli.test_output import told
from tests.config.test_recipe import SMALL, recipe
from tests.models import tiny
from tiltlab.config.recipe import load_recipe
from tiltlab.errors import UserError
from tiltlab.plan import plan as plan_module
from tiltlab.plan.cards import CARDS, card
from tiltlab.plan.compute import forward, step_of
from tiltlab.plan.outcome import Plan
from tiltlab.plan.plan import plan_study, require_room
from tiltlab.plan.rates import Measured, cache_file, key_of, measured, recalled, remember, way_of
from tiltlab.plan.shapes import Ask, Batch
from tiltlab.storage.files import append_line
from tiltlab.storage.run_folder import JobDir

LLAMA = "meta-llama/Llama-3.2-3B-Instruct"
PAPER = {
    "model": {"path": LLAMA, "checkpointing": False},
    "train": {"steps": 500, "prompts": 32, "responses": 8, "max_tokens": 2048},
    "tasks": ["math"],
    "test": {"n": 16, "forecast_n": 0},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def paper(tmp_path: Path, *changes: str, gpu: str = "h100", **options: Any) -> Plan:
    return plan_study(load_recipe(recipe(tmp_path, **PAPER), changes), card(gpu), **options)


def test_a_plan_loads_no_weights_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    tiny.llama().config.save_pretrained(folder)  # nothing but a config.json
    path = recipe(tmp_path, model={"path": str(folder), "device": "cpu"})
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "plan", path) == 0
    said = capsys.readouterr().out
    assert "memory in rollout, on CPU" in said
    assert "read from the model's config" in said
    for part in ("weights", "reference", "moments", "gradients", "activations", "logits", "keys and values"):
        assert f" {part} " in said
    assert sorted(tmp_path.rglob("*")) == before


def test_every_line_of_time_says_what_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path)
    assumed = told(monkeypatch, capsys, "plan", path)
    assert {line["source"] for line in assumed["times"]} == {"assumed"}
    assert run(monkeypatch, "study", path, "--jobs", "1", "--out", str(tmp_path / "run")) == 0
    found = told(monkeypatch, capsys, "plan", path)
    assert {line["source"] for line in found["times"]} == {"measured"}
    steps = [json.loads(line) for line in JobDir.of(tmp_path / "run", "lazy-sum", "task reward", 0).metrics.open()]
    tokens, seconds = (sum(step[key]["rollout"] for step in steps) for key in ("tokens", "seconds"))
    of_a_step = {line["what"]: line["seconds"] for line in found["times"]}
    assert of_a_step["rollout of a step"] == pytest.approx(2 * 2 * 8 / (tokens / seconds))
    assert any("measured: rollout" in line for line in found["assumptions"])
    way = way_of("hf", checkpointing=False)
    remember(Measured(found["shape"]["key"], "CPU", way, 3, {"rollout": 10.0}))
    partly = told(monkeypatch, capsys, "plan", path)
    sources = {line["what"]: line["source"] for line in partly["times"]}
    assert (sources["rollout of a step"], sources["update of a step"]) == ("measured", "assumed")
    assert sources["a job that trains"] == "partly measured"


def test_a_published_model_is_planned_without_the_hub_and_it_is_said(tmp_path: Path) -> None:
    plan = paper(tmp_path)
    assert plan.model_source == "shape as published; not read from the model"
    assert plan.shape.parameters == 3_212_749_824
    assert plan.jobs == 2
    assert not plan.fits


def test_sizes_may_come_from_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.llama().config.save_pretrained(tmp_path / "elsewhere")
    path = recipe(tmp_path, model={"path": "nobody/has-this"})
    for given in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "config.json"):
        found = told(monkeypatch, capsys, "plan", path, "--config", str(given))
        assert found["shape"]["parameters"] == sum(p.numel() for p in tiny.llama().parameters())
        assert str(given) in found["model_source"]
    (tmp_path / "odd.json").write_text("[]")
    assert run(monkeypatch, "plan", path, "--config", str(tmp_path / "odd.json")) == 2
    assert "names no model_type" in capsys.readouterr().err


def test_what_cannot_fit_is_refused_in_one_line_with_a_remedy_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, **PAPER)
    found = told(monkeypatch, capsys, "plan", path, "--gpu", "h100", code=2)
    assert not found["fits"]
    assert found["update_bytes"] > found["device"]["usable"]
    assert run(monkeypatch, "plan", path, "--gpu", "h100") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "does not fit h100: its update takes" in line
    assert "--set model.checkpointing=true" in line
    assert paper(tmp_path, "model.checkpointing=true").fits


@pytest.mark.parametrize(("model", "gpu"), [(LLAMA, "l40s"), (LLAMA, "h100"), ("Qwen/Qwen3-4B-Instruct-2507", "24 GB")])
def test_every_remedy_is_one(tmp_path: Path, model: str, gpu: str) -> None:
    changes = [f"model.path={model}", "train.max_tokens=4096", "train.micro_batch_tokens=65536"]
    plan = paper(tmp_path, *changes, "model.batch_tokens=4000000", gpu=gpu)
    assert not plan.fits
    assert plan.remedies
    for remedy in plan.remedies:
        if remedy.startswith("--gpu"):
            assert paper(tmp_path, *changes, "model.batch_tokens=4000000", gpu=remedy.split()[1]).fits
        else:
            given = [one.strip().strip("'") for one in remedy.split("--set ")[1:]]
            assert paper(tmp_path, *changes, "model.batch_tokens=4000000", *given, gpu=gpu).fits, remedy


def test_cards_are_known_by_name_and_by_size() -> None:
    assert [card(name).memory for name in CARDS] == sorted(card(name).memory for name in CARDS)
    assert card("24 GB").usable == 24e9 - 2.5e9
    assert card("H100").usable == pytest.approx(83e9, rel=0.01)
    for odd in ("h1000", "GB", "2 GB", "-4 GB", ""):
        with pytest.raises(UserError, match="no such card"):
            card(odd)


def test_seeds_multiply_jobs_time_and_disk(tmp_path: Path) -> None:
    one, three = paper(tmp_path), paper(tmp_path, seeds=3)
    assert three.jobs == 3 * one.jobs
    assert three.times[-1].seconds == pytest.approx(3 * one.times[-1].seconds)
    assert three.disk[1].nbytes == 3 * one.disk[1].nbytes == 6 * one.shape.weights


def test_a_study_that_only_samples_holds_no_optimiser(tmp_path: Path) -> None:
    plan = plan_study(load_recipe(recipe(tmp_path, arms=["base", "greedy"])), card("4090"))
    assert {part.name for part in plan.rollout.parts} == {"weights", "keys and values", "logits"}
    assert not plan.update.parts
    assert plan.fits


def test_a_card_of_unknown_speed_has_no_times(tmp_path: Path) -> None:
    plan = paper(tmp_path, gpu="200 GB")
    assert not plan.times
    assert any("no time is told" in note for note in plan.notes)


def test_a_job_costs_what_its_tokens_cost(tmp_path: Path) -> None:
    plan = paper(tmp_path, "train.steps=7", "validation={every: 7, problems: 10, n: 3}", "test={n: 2, problems: 20}")
    seconds = {line.what: line.seconds for line in plan.times}
    step = sum(seconds[f"{phase} of a step"] for phase in ("rollout", "reference", "update"))
    drawn = 2 * 10 * 3 + 2 * 20 * 2  # validated twice, tested twice
    drawing = seconds["rollout of a step"] + 2 * seconds["reference of a step"]
    assert seconds["a job that trains"] == pytest.approx(7 * step + drawn / 256 * drawing)


def test_flops_are_two_a_weight_and_token_and_the_scores_of_attention(tmp_path: Path) -> None:
    shape = paper(tmp_path).shape
    batch = Batch(1, 1, 1, 1000)
    attention = 4 * shape.layers * shape.attention * (1000 * (1 + 500) + 0.5)
    assert forward(shape, batch, prompts_for_each=False) == pytest.approx(2 * shape.parameters * 1001 + attention)
    asked = Ask(batch, 1, None, False, "device", reference=True)
    flops = step_of(shape, asked).flops
    assert flops["update"] == 3 * flops["reference"]
    again = step_of(shape, Ask(batch, 1, None, True, "device", reference=True)).flops
    assert again["update"] == 4 * again["reference"]


def small_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: str) -> None:
    monkeypatch.setattr("tiltlab.study.study.this_machine", lambda _: card(gigabytes))


def test_a_study_that_cannot_fit_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_gpu(monkeypatch, "2.52 GB")
    monkeypatch.setattr("tiltlab.study.study.load_base", lambda *_: pytest.fail("weights were loaded"))
    monkeypatch.setattr("tiltlab.study.study.load_reference", lambda *_: pytest.fail("weights were loaded"))
    path = recipe(tmp_path, train=SMALL["train"] | {"responses": 256, "max_tokens": 64})
    assert run(monkeypatch, "study", path, "--out", str(tmp_path / "run")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "does not fit 2.52 GB" in line
    assert "it fits with --set " in line
    assert not (tmp_path / "run").exists()


def test_jobs_that_share_a_device_must_fit_together(tmp_path: Path) -> None:
    asked = load_recipe(recipe(tmp_path, **PAPER), ["model.checkpointing=true"])
    assert require_room(asked, card("h100"), 1) is None
    with pytest.raises(UserError, match="2 jobs side by side.*--jobs 1"):
        require_room(asked, card("h100"), 2)


def test_a_machine_without_a_gpu_is_only_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiltlab.plan.shapes import Device

    asked = load_recipe(recipe(tmp_path, **PAPER), ["model.checkpointing=true"])
    said = require_room(asked, Device("CPU", 10**10, 10**10, None, None, is_gpu=False), 1)
    assert said is not None
    assert "does not fit CPU" in said
    monkeypatch.setattr(plan_module, "case_of", lambda *_: (_ for _ in ()).throw(UserError("cannot be counted")))
    assert "cannot be counted" in str(require_room(asked, card("h100"), 1))


def test_rates_outlive_a_damaged_cache_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    found = Measured("m", "NVIDIA H100 80GB HBM3", "hf", 2, {"rollout": 5.0})
    remember(found)
    for odd in ({"model": "m"}, {"model": 1, "device": None, "how": "hf", "steps": "x", "rates": []}):
        append_line(cache_file(), odd)
    assert recalled("m", "h100", "hf") == found
    assert recalled("m", "h200", "hf") is None
    assert recalled("m", "h100", "vllm") is None
    newer = Measured("m", "NVIDIA H100 80GB HBM3", "hf", 2, {"rollout": 7.0})
    remember(newer)
    assert recalled("m", "h100", "hf") == newer
    cache_file().unlink()
    cache_file().parent.rmdir()
    cache_file().parent.write_text("")
    remember(found)
    assert recalled("m", "h100", "hf") is None


def test_rates_are_tokens_over_seconds_of_steps_with_a_clock() -> None:
    lines = [
        {"seconds": {"rollout": 2.0, "update": 4.0}, "tokens": {"rollout": 10, "update": 10}},
        {"seconds": {"rollout": 3.0, "update": 0.0}, "tokens": {"rollout": 15, "update": 10}},
        {"step": 2},
    ]
    found = measured("m", "d", "hf", lines)
    assert found == Measured("m", "d", "hf", 2, {"rollout": 5.0, "update": 5.0})
    assert measured("m", "d", "hf", [{"step": 0}]) is None
    config = tiny.llama().config
    assert key_of(config, torch.float32, None) == "llama 2 x 32 x 48 x 9, float32"


def test_an_engine_beside_the_trainer_has_its_share_while_it_draws_and_little_while_it_sleeps(tmp_path: Path) -> None:
    settings = ["model.checkpointing=true", "train.max_tokens=512"]
    alone = paper(tmp_path, *settings)
    beside = paper(tmp_path, *settings, "engine={name: vllm, memory: 0.3}")
    rollout = {part.name: part.nbytes for part in beside.rollout.parts}
    assert rollout["engine"] == int(0.3 * beside.device.memory)
    assert "keys and values" not in rollout
    assert beside.update.total() == alone.update.total() + 1.5e9
    assert beside.times[0].seconds < alone.times[0].seconds  # its decoding steps cost less
    apart = paper(tmp_path, *settings, "engine={name: vllm, device: 'cuda:1'}")
    assert apart.update.total() == alone.update.total()
    assert not {part.nbytes for part in apart.rollout.parts if part.name == "engine"} - {0}
    greedy = paper(tmp_path, *settings, "engine={name: vllm, memory: 0.9}")
    assert not greedy.fits
    assert greedy.remedies[0].startswith("--set engine.memory=")
    assert paper(tmp_path, *settings, "engine={name: vllm, memory: 0.9}", greedy.remedies[0].split()[1]).fits


def test_slots_are_not_copied_and_step_faster(tmp_path: Path) -> None:
    settings = ["model.checkpointing=true", "model.batch_tokens=70000"]
    slots, plain = paper(tmp_path, *settings), paper(tmp_path, *settings, "model.decoding=plain")
    in_slots, in_rows = ({part.name: part.nbytes for part in one.rollout.parts} for one in (slots, plain))
    assert "copy of them" in in_rows
    assert "copy of them" not in in_slots
    assert in_slots["keys and values"] == slots.rows * 2560 * 112 * 1024  # 256 + 2048 columns, rounded up
    assert slots.times[0].seconds < plain.times[0].seconds


def test_a_study_may_begin_with_more_than_fits_as_it_goes_on_with_less(tmp_path: Path) -> None:
    asked = load_recipe(recipe(tmp_path, **PAPER), ["model.checkpointing=true", "train.micro_batch_tokens=500000"])
    assert not plan_study(asked, card("h100")).fits
    assert require_room(asked, card("h100"), 1) is None
