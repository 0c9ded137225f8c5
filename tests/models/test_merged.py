"""Adapters merged for another engine: the same model to rounding, and the one that trains untouched."""

import peft
import pytest
import torch

from tests.models.tiny import gpt2, llama, model
from tiltlab.models.hf import HFModel

TOKENS = torch.arange(9)[None]


def adapted(module: torch.nn.Module, targets: str | list[str]) -> HFModel:
    wrapped = peft.get_peft_model(module, peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets))
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model(wrapped)


@pytest.mark.parametrize(
    ("make", "targets"), [(llama, "all-linear"), (llama, ["q_proj", "embed_tokens"]), (gpt2, ["c_attn"])]
)
def test_merged_weights_make_the_same_model(make, targets) -> None:
    policy = adapted(make(), targets)
    before = policy.fingerprint()
    plain, base = make(), make().state_dict()
    weights = dict(policy.weights())
    assert list(weights) == list(base)
    model(plain).load(weights.items())
    with torch.no_grad():
        wanted, got = policy.module(TOKENS).logits, plain(TOKENS).logits
    assert (wanted - make()(TOKENS).logits).abs().max() > 0.1
    assert torch.allclose(wanted, got, atol=1e-5)
    assert policy.fingerprint() == before


def test_the_reference_of_an_adapted_model_hands_over_the_base() -> None:
    policy = adapted(llama(), "all-linear")
    reference = HFModel(policy.module, policy.codec, adapter=False)
    base = llama().state_dict()
    weights = dict(reference.weights())
    assert list(weights) == list(base)
    assert all(torch.equal(weights[name], base[name]) for name in base)


def test_bf16_is_rounded_once() -> None:
    policy = adapted(llama().bfloat16(), "all-linear")
    name = "model.layers.0.self_attn.q_proj"
    layer = policy.module.get_base_model().get_submodule(name)
    assert layer.lora_A["default"].weight.dtype == torch.float32
    exact = layer.base_layer.weight.float() + layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 5 / 3
    assert torch.equal(dict(policy.weights())[f"{name}.weight"], exact.bfloat16())
