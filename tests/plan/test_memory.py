"""What a plan says is held, against a dry count of what is."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from tests.plan import dry
from tiltlab.errors import UserError
from tiltlab.models.loading import LoraConfig, ModelConfig
from tiltlab.plan import memory
from tiltlab.plan.cards import card
from tiltlab.plan.published import PUBLISHED, settings_of
from tiltlab.plan.shapes import Ask, Batch
from tiltlab.plan.skeleton import Skeleton

SHAPES = [("llama", True), ("llama", False), ("qwen2", True), ("qwen2", False), ("qwen3", True), ("qwen3", False)]
DTYPES = [torch.float32, torch.bfloat16]
BATCH = Batch(4, 4, 24, 80)
PAPER = ["Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen3-4B-Instruct-2507", "meta-llama/Llama-3.2-3B-Instruct"]
MICRO = 2 * 4 * 80  # two groups
WAYS = [(False, False), (True, False), (True, True)]


def planned(config: Any, dtype: torch.dtype, ask: Ask, lora: LoraConfig | None = None) -> dict[str, int]:
    """Bytes by part, of both phases."""
    model = Skeleton("dry", config, dtype, lora)
    phases = memory.rollout(model, ask, card("h200")), memory.update(model, ask)
    return {part.name: part.nbytes for phase in phases for part in phase.parts}


COUNTED = {"weights", "moments", "gradients", "activations", "logits", "keys and values"}
"""Parts that every step holds: a count that misses one proves nothing."""


def compare(found: dict[str, int], told: dict[str, int]) -> None:
    assert {name for name in COUNTED if not found[name]} == set()
    for name, nbytes in found.items():
        if nbytes or told.get(name):
            assert told.get(name, 0) == pytest.approx(nbytes, rel=0.1), (name, found, told)


@pytest.mark.parametrize(
    ("family", "tied", "dtype", "checkpointing"),
    [(family, tied, dtype, (dtype == torch.float32) == tied) for family, tied in SHAPES for dtype in DTYPES],
)
def test_each_part_is_what_a_step_holds(family: str, tied: bool, dtype: torch.dtype, checkpointing: bool) -> None:
    config = dry.settings(family, tied=tied)
    ask = Ask(BATCH, MICRO, 32768, checkpointing, "device", reference=True)
    found = dry.step(config, BATCH, MICRO, dtype=dtype, checkpointing=checkpointing)
    compare(found, planned(config, dtype, ask))


@pytest.mark.parametrize(("dtype", "checkpointing"), [*zip(DTYPES, [True, False], strict=True)])
def test_each_part_is_what_a_step_with_adapters_holds(dtype: torch.dtype, checkpointing: bool) -> None:
    config, lora = dry.settings("qwen3", tied=True), LoraConfig(rank=4)
    ask = Ask(BATCH, MICRO, 32768, checkpointing, "device", reference=False)
    found = dry.step(config, BATCH, MICRO, dtype=dtype, checkpointing=checkpointing, lora=lora)
    assert found["adapters"]
    assert not found["reference"]
    compare(found, planned(config, dtype, ask, lora))


def test_logits_are_made_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dry.settings("llama", tied=True)
    chunk = 4 * 600 * 100  # of 100 positions
    monkeypatch.setattr("tiltlab.models.vocabulary.CHUNK_BYTES", chunk)
    monkeypatch.setattr("tiltlab.plan.memory.CHUNK_BYTES", chunk)
    ask = Ask(BATCH, MICRO, 32768, False, "device", reference=True)
    told = planned(config, torch.float32, ask)
    assert told["logits"] < 3 * chunk
    compare(dry.step(config, BATCH, MICRO, dtype=torch.float32, least=100), told)


def test_rows_that_a_recipe_bounds_are_fewer() -> None:
    config, tokens = dry.settings("llama", tied=True), 3 * (BATCH.prompt + BATCH.tokens)
    ask = Ask(BATCH, MICRO, tokens, False, "device", reference=True)
    found = dry.step(config, BATCH, MICRO, dtype=torch.float32, batch_tokens=tokens)
    told = planned(config, torch.float32, ask)
    assert told["keys and values"] == pytest.approx(found["keys and values"], rel=0.1)
    assert told["logits"] > found["logits"]  # which are made for fewer rows at a time


@pytest.mark.slow
@pytest.mark.parametrize(("name", "checkpointing"), [*zip(PAPER, [True, False, False], strict=True)])
def test_a_part_of_a_published_model_is_as_planned(name: str, checkpointing: bool) -> None:
    """An eighth of the layers and a quarter of each width, which is what a core trains in seconds."""
    given = PUBLISHED[name]
    heads = max(2, given["num_attention_heads"] // 4)
    pairs = 2 if heads % 2 == 0 else 1
    sizes = {key: given[key] // 4 for key in ("hidden_size", "intermediate_size")}
    sizes |= {
        "num_hidden_layers": given["num_hidden_layers"] // 8,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": 16000,
    }
    sizes["hidden_size"] -= sizes["hidden_size"] % heads
    config = dry.settings(given["model_type"], tied=True, **sizes)
    ask = Ask(BATCH, MICRO, 32768, checkpointing, "device", reference=True)
    found = dry.step(config, BATCH, MICRO, dtype=torch.bfloat16, checkpointing=checkpointing)
    compare(found, planned(config, torch.bfloat16, ask))


SMALL = Batch(32, 8, 256, 2048)


def model_of(name: str, lora: LoraConfig | None = None) -> Skeleton:
    return Skeleton(name, settings_of(ModelConfig(path=name))[0], torch.bfloat16, lora)


@pytest.mark.parametrize(
    ("name", "billions", "keys"),
    [
        ("meta-llama/Llama-3.2-3B-Instruct", 3.21, 112),
        ("Qwen/Qwen2.5-3B-Instruct", 3.09, 36),
        ("Qwen/Qwen3-4B-Instruct-2507", 4.02, 144),
    ],
)
def test_published_models_have_the_sizes_that_people_know(name: str, billions: float, keys: int) -> None:
    model = model_of(name)
    assert model.shape.parameters / 1e9 == pytest.approx(billions, abs=0.005)
    assert model.keys(100) == 100 * keys * 1024
    ask = Ask(SMALL, 16384, None, True, "device", reference=True)
    parts = {part.name: part.nbytes for part in memory.update(model, ask).parts}
    held = ["weights", "reference", "master weights", "moments", "gradients"]
    assert sum(parts[name] for name in held) == pytest.approx(20 * model.shape.parameters)  # float32 and bf16 copies
    assert parts["gradients of a backward pass"] == 2 * model.shape.largest
    on_host = memory.update(model, replace(ask, state="host"))
    assert on_host.total("host") == (12 + 2) * model.shape.parameters  # the reference too
    assert memory.update(model, ask).total() - on_host.total() == (12 + 2) * model.shape.parameters
    bits = {part.name: part.nbytes for part in memory.update(model, replace(ask, state="8bit")).parts}
    assert bits["moments"] == pytest.approx(2 * model.shape.parameters, rel=0.02)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize(("ranks", "least", "most"), [(4, 33.9e9, 44.5e9), (8, 29e9, 38.5e9)])
def test_a_rank_holds_whole_weights_and_gradients_and_its_part_of_the_rest(
    name: str, ranks: int, least: float, most: float
) -> None:
    """8 + 12 / N bytes a weight: 34 to 44 GB on each of 4, 29 to 38 on 8, before activations."""
    model = model_of(name)
    ask, count = Ask(SMALL, 16384, None, True, "device", reference=True, ranks=ranks), model.shape.parameters
    phases = memory.rollout(model, ask, card("h100")), memory.update(model, ask)
    rollout, update = ({part.name: part.nbytes for part in phase.parts} for phase in phases)
    held = {"weights": 2, "reference": 2, "master weights": 4 / ranks, "moments": 8 / ranks, "gradients": 4}
    for part, width in held.items():
        assert update[part] == pytest.approx(width * count)
    assert least < sum(update[part] for part in held) < most
    alone = {part.name: part.nbytes for part in memory.update(model, replace(ask, ranks=1)).parts}
    assert update["activations"] == alone["activations"]
    assert {part for part in held if part in rollout} == held.keys() - {"gradients"}
    assert rollout["keys and values"] <= SMALL.rows // ranks * model.keys(2 * (SMALL.prompt + SMALL.tokens))


def test_of_ranks_whose_state_is_on_the_host_the_weights_stay() -> None:
    model = model_of("Qwen/Qwen2.5-3B-Instruct")
    ask = Ask(SMALL, 16384, None, True, "host", reference=True, ranks=4)
    where = {part.name: part.where for part in memory.update(model, ask).parts}
    assert (where["master weights"], where["moments"], where["reference"]) == ("device", "host", "host")
    assert memory.update(model, ask).total("host") == (8 // 4 + 2) * model.shape.parameters


def test_ranks_share_adapters_moments_and_hold_the_base_whole() -> None:
    model = model_of("Qwen/Qwen2.5-3B-Instruct", LoraConfig(rank=16))
    ask = Ask(SMALL, 16384, None, True, "device", reference=False)
    one, four = ({part.name: part.nbytes for part in memory.update(model, replace(ask, ranks=n)).parts} for n in (1, 4))
    assert four["weights"] == one["weights"]
    assert four["moments"] == one["moments"] // 4


def test_a_rank_that_has_more_gradients_than_activations_is_counted_by_them() -> None:
    model = model_of("Qwen/Qwen2.5-0.5B-Instruct")
    ask = Ask(Batch(4, 2, 8, 8), 16, None, True, "device", reference=True, ranks=2)
    parts = {part.name: part.nbytes for part in memory.update(model, ask).parts}
    assert parts["reduced gradients"] == 2 * model.shape.parameters
    assert "activations" not in parts


def test_groups_are_dealt_out_whole() -> None:
    ask = Ask(SMALL, 10**9, None, True, "device", reference=True, slots=True)
    assert [replace(ask, ranks=n).share.groups for n in (1, 3, 4, 32, 64)] == [32, 11, 8, 1, 1]
    assert [replace(ask, ranks=n).micro_batch.groups for n in (1, 4)] == [32, 8]
    assert [replace(ask, ranks=n).in_slots for n in (1, 2)] == [True, False]


def test_checkpointing_is_left_to_the_device() -> None:
    model = model_of("Qwen/Qwen2.5-0.5B-Instruct")
    ask = Ask(SMALL, 16384, None, None, "device", reference=True)
    large, small = card("1000 GB"), card("24 GB")
    assert not memory.checkpointing(model, ask, large)
    assert memory.checkpointing(model, ask, small)
    assert memory.checkpointing(model, replace(ask, checkpointing=True), large)
    assert not memory.checkpointing(model, ask, replace(small, is_gpu=False))  # as a job has it


def test_a_model_that_its_data_steer_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="model odd: its config makes no causal language model"):
        Skeleton("odd", AutoConfig.for_model("vit"), torch.float32, None)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_layers_that_are_alike_are_counted_from_two_of_them(
    family: str, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dry.settings(family, tied=True)

    def counts() -> list[int]:
        model = Skeleton("dry", config, torch.bfloat16, lora)
        kept = [model.kept(BATCH, whole=whole, checkpointing=again) for whole, again in WAYS]
        return [model.keys(100), *kept]

    quick = counts()
    monkeypatch.setattr("tiltlab.plan.skeleton._few", lambda *_: [])
    assert counts() == quick
