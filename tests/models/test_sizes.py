"""The arithmetic of memory against what forwards of small random models really keep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.models import tiny
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_model, policy_from
from tiltlab.models.sizes import HEAD, ON_CPU, Sizes

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
PAPER = {
    "Llama-3.2-3B": (28, 3072, 8192, 24, 8, 128, 128256, 2),
    "Qwen2.5-3B": (36, 2048, 11008, 16, 2, 128, 151936, 2),
    "Qwen3-4B": (36, 2560, 9728, 32, 8, 128, 151936, 2),
}


def kept(module: Any, forward: Callable[[], Any]) -> int:
    """Bytes of all tensors but weights that a forward keeps for its backward pass, each counted once."""
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    found: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # an address is not to be given out twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_a_forward_keeps(family: str, dtype: torch.dtype) -> None:
    """Never more than was told, and no less than four fifths of it."""
    config = FAMILIES[family](**SHAPE)
    module = AutoModelForCausalLM.from_config(config).to(dtype)
    ids = torch.randint(512, (4, 64))
    real = kept(module, lambda: module.model(input_ids=ids, past_key_values=DynamicCache(config=config)))
    told = Sizes.of(config, dtype.itemsize).activations(checkpointing=False) * ids.numel()
    assert 0.8 * told <= real <= 1.02 * told


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_what_a_cache_holds(family: str) -> None:
    config = FAMILIES[family](**SHAPE)
    module = AutoModelForCausalLM.from_config(config)
    cache = DynamicCache(config=config)
    with torch.no_grad():
        module.model(input_ids=torch.randint(512, (2, 16)), past_key_values=cache)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert real == Sizes.of(config, 4).kv * 32


def test_the_papers_models_have_the_keys_that_are_known() -> None:
    kib = {name: Sizes(*sizes).kv / 1024 for name, sizes in PAPER.items()}
    assert kib == {"Llama-3.2-3B": 112, "Qwen2.5-3B": 36, "Qwen3-4B": 144}


def test_a_group_of_the_papers_needs_checkpointing_on_one_gpu_and_a_small_one_does_not() -> None:
    llama = Sizes(*PAPER["Llama-3.2-3B"])
    assert llama.needs_checkpointing(8 * 2048, free=57 * 10**9)
    assert not llama.needs_checkpointing(8 * 512, free=57 * 10**9)
    assert llama.activations(checkpointing=True) * 8 * 2048 < 10**10


def test_rows_are_many_where_memory_is_free_and_one_where_there_is_none() -> None:
    llama = Sizes(*PAPER["Llama-3.2-3B"])
    wide = llama.fit(57 * 10**9)
    assert wide.drawing // 2304 > 64  # where 32768 tokens are 14 rows
    assert wide.drawing * llama.kv * 2.5 < 57e9
    assert wide.scoring * llama.kv + HEAD < 57e9
    assert wide.drawing != wide.scoring
    assert llama.fit(0) == (1, 1)


def test_families_that_say_less_of_themselves_are_reckoned_too() -> None:
    gpt2 = Sizes.of(GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=99), 4)
    assert (gpt2.layers, gpt2.hidden, gpt2.inner, gpt2.kv_heads, gpt2.head) == (3, 64, 256, 4, 16)
    experts = MixtralConfig(**SHAPE | {"head_dim": None}, num_experts_per_tok=2, num_local_experts=4)
    assert Sizes.of(experts, 2).inner == 2 * 688


def free(monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    monkeypatch.setattr("tiltlab.models.hf.free_bytes", lambda _: found)


def test_on_cpu_auto_is_what_it_was() -> None:
    model: HFModel = load_model()
    assert (model.batch_tokens, model.scoring_tokens, model.checkpointing) == (ON_CPU, ON_CPU, False)
    model.fit()
    assert model.batch_tokens == 32768


def test_on_a_gpu_auto_follows_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10**9)
    small: HFModel = load_model()
    free(monkeypatch, 10**11)
    large: HFModel = load_model()
    assert isinstance(large.batch_tokens, int)
    assert large.batch_tokens > 50 * small.batch_tokens
    assert load_model(ModelConfig(batch_tokens=77)).batch_tokens == 77


def test_policy_and_reference_divide_their_rows_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10**10)
    base: HFModel = load_model()
    with policy_from(base, ModelConfig(), seed=0) as (policy, reference):
        assert policy.scoring_tokens == reference.scoring_tokens == base.scoring_tokens
    with policy_from(base, ModelConfig(batch_tokens=500, checkpointing=True), seed=0) as (policy, reference):
        assert policy.scoring_tokens == reference.scoring_tokens == 500
        assert policy.checkpointing
        assert reference.checkpointing
        assert base.scoring_tokens != 500


def test_scoring_has_a_bound_of_its_own() -> None:
    model = tiny.model(batch_tokens=1000, scoring_tokens=30)
    widths = []
    body = model._body
    model._body = lambda **given: widths.append(given["input_ids"].numel()) or body(**given)
    rollouts = model.generate(["abc"], n=16, max_tokens=12, seed=0)
    widths.clear()
    model.logprobs(["abc"], rollouts)
    assert len(widths) > 2
    assert max(widths) <= 30
