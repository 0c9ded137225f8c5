"""Logits in float32 from 16-bit weights, against a head computed in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import tiny
from tiltlab.models.head import Head
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from


class Base:
    """As much of a model as its head looks at."""

    def __init__(self, layer: nn.Module, **config: float) -> None:
        self.layer, self.config = layer, type("Config", (), config)()

    def get_output_embeddings(self) -> nn.Module:
        return self.layer


def layer(dtype: torch.dtype, vocabulary: int = 20_000, hidden: int = 64, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(hidden, vocabulary, bias=bias)
    nn.init.normal_(made.weight, std=0.5)
    return made.to(dtype)


def hidden_states(dtype: torch.dtype, device: str = "cpu") -> Tensor:
    values = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    return values.to(device, dtype)


def test_logits_of_bf16_weights_are_not_rounded_to_bf16() -> None:
    """Against float64, the error of a log-probability falls from more than a hundredth of a nat to under 1e-4."""
    linear, hidden = layer(torch.bfloat16, bias=True), hidden_states(torch.bfloat16)
    exact = (hidden.double() @ linear.weight.double().t() + linear.bias.double()).log_softmax(-1)
    ours = Head(Base(linear))(hidden)
    assert ours.dtype == torch.float32
    assert (ours.log_softmax(-1) - exact).abs().max() < 1e-4
    assert (linear(hidden).float().log_softmax(-1) - exact).abs().max() > 1e-2


@pytest.mark.parametrize("after", [{"logit_scale": 0.5}, {"logits_scaling": 2.0}, {"final_logit_softcapping": 3.0}])
def test_what_comes_after_the_head_is_float32_too(after: dict[str, float]) -> None:
    linear, hidden = layer(torch.bfloat16), hidden_states(torch.bfloat16)
    exact = hidden.double() @ linear.weight.double().t()
    exact = 3 * torch.tanh(exact / 3) if "final_logit_softcapping" in after else exact / 2
    torch.testing.assert_close(Head(Base(linear, **after))(hidden), exact.float(), atol=1e-5, rtol=1e-5)


def test_a_float32_head_is_the_model_s_own_to_the_last_bit() -> None:
    linear, hidden = layer(torch.float32, bias=True), hidden_states(torch.float32)
    assert torch.equal(Head(Base(linear))(hidden), linear(hidden))


def test_a_head_that_is_more_than_a_linear_layer_is_called_as_it_is() -> None:
    linear, hidden = layer(torch.bfloat16), hidden_states(torch.bfloat16)
    twice = type("Twice", (nn.Linear,), {"forward": lambda self, x: 2 * nn.Linear.forward(self, x)})
    expected = 2 * linear(hidden)
    linear.__class__ = twice
    assert torch.equal(Head(Base(linear))(hidden), expected)


def gradients(head: Any, hidden: Tensor, weights: Tensor) -> list[Tensor]:
    hidden = hidden.clone().requires_grad_()
    (head(hidden).float() * weights).sum().backward()
    return [hidden.grad]  # type: ignore[list-item]


def test_the_way_back_is_that_of_the_linear_layer() -> None:
    linear, hidden = layer(torch.bfloat16, vocabulary=500), hidden_states(torch.bfloat16)
    weights = torch.randn(12, 500, generator=torch.Generator().manual_seed(2))
    found = []
    for head in (Head(Base(linear)), linear):
        linear.zero_grad()
        found.append([*gradients(head, hidden, weights), linear.weight.grad])
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-2)


def test_weights_that_do_not_train_get_no_gradient() -> None:
    linear, hidden = layer(torch.bfloat16, vocabulary=500).requires_grad_(False), hidden_states(torch.bfloat16)
    assert gradients(Head(Base(linear)), hidden, torch.ones(12, 500))[0].abs().sum() > 0
    assert linear.weight.grad is None


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_bf16_weights_start_at_a_kl_of_exactly_0(lora: LoraConfig | None, checkpointing: bool) -> None:
    base = tiny.model(tiny.llama().to(torch.bfloat16).requires_grad_(False))
    config = ModelConfig(lora=lora, checkpointing=checkpointing)
    with policy_from(base, config, seed=0) as (policy, reference):
        prompts = ["abc", "a", "abcdabcd"]
        rollouts = policy.generate(prompts, n=4, max_tokens=12, seed=0)
        current = policy.logprobs(prompts, rollouts)
        with torch.no_grad():
            frozen = reference.logprobs(prompts, rollouts)
        assert current.token_PGT.requires_grad
        assert torch.equal(current.token_PGT.detach(), frozen.token_PGT)


def test_what_is_drawn_is_scored_in_float32_too() -> None:
    model: HFModel = tiny.model(tiny.llama().to(torch.bfloat16))
    scored = model.logprobs(["ab"], model.generate(["ab"], n=8, max_tokens=10, seed=0)).token_PGT
    halves = scored[scored != 0].detach().bfloat16().float()
    assert (halves != scored[scored != 0].detach()).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_float32_logits() -> None:
    linear, hidden = layer(torch.bfloat16).cuda(), hidden_states(torch.bfloat16, "cuda")
    exact = (hidden.double() @ linear.weight.double().t()).log_softmax(-1)
    ours = Head(Base(linear))(hidden)
    assert ours.dtype == torch.float32
    assert (ours.log_softmax(-1) - exact).abs().max() < 1e-4
    weights = torch.randn(12, 20_000, device="cuda")
    theirs = gradients(linear, hidden, weights)[0]
    torch.testing.assert_close(gradients(Head(Base(linear)), hidden, weights)[0], theirs, atol=0, rtol=5e-2)
