"""Whatever the trainer changes arrives: one kind of weight after another, through the project's own train step."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import peft
import pytest
import torch

from tests.contract.shapes import (
    A_TOKEN,
    PROMPTS,
    TASK,
    difference,
    drawn_by_vllm,
    groups,
    kind_of,
    mismatch,
    module,
    needs_vllm,
    policy,
)
from tiltlab.models.engine import Split
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec
from tiltlab.objective import tempered
from tiltlab.training.alarms import Watch
from tiltlab.training.importance import Correction
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train, train_step

pytestmark = needs_vllm

TRAIN = TrainConfig(steps=1, prompts=4, responses=4, max_tokens=24, fixed_length=True)  # all count


def step(both: Split, reference: HFModel, number: int, lr: float) -> None:
    optimizer = Optimizer(both.trainable(), OptimizerConfig(lr=lr, warmup_steps=1))
    problems = TASK.problems("train")[: TRAIN.prompts]
    train_step(both, reference, TASK, tempered(4), TRAIN, optimizer, problems, number)


def frozen(trained: HFModel) -> HFModel:
    return HFModel(copy.deepcopy(trained.module).requires_grad_(False), trained.codec)


def train_only(trained: HFModel, kinds: Sequence[str]) -> None:
    for name, parameter in trained.module.named_parameters():
        parameter.requires_grad_(kind_of(name) in kinds)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_each_kind_of_weight_arrives_after_each_update(kind: str, tied: bool) -> None:
    trained = policy(kind, tied=tied)
    reference = frozen(trained)
    start = {name: weight.clone() for name, weight in trained.weights()}
    kinds = groups(trained)
    assert len(kinds) == {"llama": 12, "qwen2": 15, "qwen3": 14}[kind] - tied
    with drawn_by_vllm(trained) as both:
        assert mismatch(both) < A_TOKEN
        for number, one in enumerate(kinds):
            trained.load(start.items())  # else the last steps would leave nothing to draw but one response
            trained.updated()
            train_only(trained, [one])
            before = both.generate(PROMPTS, n=2, max_tokens=24, seed=0)
            step(both, reference, number, lr=0.02)
            assert difference(both, before) > 10 * A_TOKEN, f"{one} did not change"
            assert mismatch(both) < A_TOKEN, one
        trained.load(start.items())
        trained.updated()
        train_only(trained, kinds)
        for number in range(5):
            step(both, reference, number, lr=1e-3)
            assert mismatch(both) < A_TOKEN, number


def test_adapters_arrive_merged() -> None:
    base = module(tied=True)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    codec = load_codec(ModelConfig())
    trained, reference = HFModel(wrapped, codec), HFModel(wrapped, codec, adapter=False)
    with drawn_by_vllm(trained) as both:
        for number in range(5):
            before = both.generate(PROMPTS, n=2, max_tokens=24, seed=0)
            step(both, reference, number, lr=0.02)
            assert difference(both, before) > 10 * A_TOKEN
            assert mismatch(both) < A_TOKEN


def test_stale_weights_fire_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the loop itself, from what it logs: for the engine claims that it has the new weights."""
    trained = policy("qwen3", tied=True)
    reference = frozen(trained)
    with drawn_by_vllm(trained) as both:
        settings = replace(TRAIN, steps=6, correction=Correction("response"))
        optimizer = Optimizer(both.trainable(), OptimizerConfig(lr=2e-3, warmup_steps=1))
        steps = train(both, reference, TASK, tempered(2), settings, optimizer)
        watch = Watch()
        for _ in range(3):
            line = next(steps)
            assert line["mismatch_mean"] < A_TOKEN
            assert abs(line["weight_mean"] - 1) < 1e-3
            watch.stepped(line)
        assert not [alarm for alarm in watch.fired if alarm.kind == "sampler mismatch"]
        monkeypatch.setattr(both.engine, "update", lambda _, version: setattr(both.engine, "version", version))
        for line in steps:
            watch.stepped(line)
        (alarm,) = [alarm for alarm in watch.fired if alarm.kind == "sampler mismatch"]
        assert alarm.step == 4  # the first step with stale weights
