"""What a study decides from the memory that a GPU has free. The GPU is played: its free bytes are what a test says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import tiny
from tests.study.test_study import STUDY
from tiltlab.config.recipe import Recipe
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, policy_from
from tiltlab.models.sizes import HEAD
from tiltlab.study.held import decided, hold
from tiltlab.study.job import Work
from tiltlab.study.run import load_base, run_job
from tiltlab.study.study import plan
from tiltlab.training.room import Room


def recipe(state: str = "device", **model: Any) -> Recipe:
    train = STUDY["train"] | {"responses": 8, "max_tokens": 2048, "optimizer": {"state": state}}
    return Recipe.model_validate(STUDY | {"model": model, "train": train})


def with_free(monkeypatch: pytest.MonkeyPatch, found: int | None) -> None:
    for room in ("tiltlab.study.held", "tiltlab.models.hf"):
        monkeypatch.setattr(f"{room}.free_bytes", lambda _: found)


@pytest.fixture
def base() -> HFModel:
    return tiny.model(tiny.llama().requires_grad_(False))


def needed(base: HFModel, bytes_a_weight: int) -> int:
    """Bytes with which a group of 8 x 2048 just fits without checkpointing."""
    weights = sum(weight.numel() for weight in base.module.parameters())
    group = 8 * 2048 * base.sizes.activations(checkpointing=False) + HEAD
    return int(group / 0.85) + bytes_a_weight * weights


def test_on_cpu_nothing_is_made_again(base: HFModel) -> None:
    assert decided(recipe(), base).checkpointing is False


@pytest.mark.parametrize(
    ("state", "lora", "bytes_a_weight"),
    [("device", None, 4 + 4 + 8), ("host", None, 0 + 4 + 0), ("device", LoraConfig(rank=2), 0)],
    ids=["device", "host", "lora"],
)
def test_activations_are_made_again_where_a_group_does_not_fit_beside_the_rest(
    state: str, lora: LoraConfig | None, bytes_a_weight: int, base: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = needed(base, bytes_a_weight)
    for free, expected in ((fits + 1000, False), (fits - 1000, True)):
        with_free(monkeypatch, free)
        assert decided(recipe(state, lora=lora), base).checkpointing is expected


@pytest.mark.parametrize("asked", [True, False])
def test_what_a_recipe_says_stands(asked: bool, base: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 0 if not asked else 10**12)
    assert decided(recipe(checkpointing=asked), base).checkpointing is asked


def test_policy_and_reference_hold_what_is_free_in_the_end(base: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe()
    with policy_from(base, asked.model, seed=0) as (policy, reference):
        with_free(monkeypatch, 10**10)
        hold(asked, policy, reference, Room(4096))
        assert policy.batch_tokens == base.sizes.fit(10**10).drawing > 32768
        assert reference.scoring_tokens == policy.scoring_tokens
        assert base.batch_tokens == 32768
        hold(asked, policy, reference, Room(4096, batch_tokens=77))
        assert policy.batch_tokens == reference.batch_tokens == 77
        hold(recipe(batch_tokens=500), policy, reference, Room(4096))
        assert policy.batch_tokens <= 500


def test_room_takes_note_of_what_drawing_ran_out_of(base: HFModel) -> None:
    room = Room(4096)
    with policy_from(base, recipe().model, seed=0) as (policy, reference):
        hold(recipe(), policy, reference, room)
        policy.ran_out(512)
    assert (room.batch_tokens, room.halved) == (512, 1)


def test_after_memory_ran_out_the_next_job_loads_the_base_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: Work) -> None:
        raise torch.OutOfMemoryError("no room")

    asked = Recipe.model_validate(STUDY)
    before, job = load_base(asked.model), plan(asked, 1)[0]
    monkeypatch.setattr("tiltlab.study.run.do_job", no_memory)
    run_job(Work(job, asked, job.folder(tmp_path), lambda *_: None, lambda: False))
    assert "memory ran out" in job.folder(tmp_path).failed.read_text(encoding="utf-8")
    assert load_base(asked.model) is not before
