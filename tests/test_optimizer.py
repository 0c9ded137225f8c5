import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tiltlab.optimizer import Optimizer, OptimizerConfig


def parameter(dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.full((4,), 0.5, dtype=dtype))


def test_steps_far_below_the_spacing_of_bf16_add_up() -> None:
    """At lr 1e-6 a step on a bf16 weight of 0.5 (spacing 2e-3) would round away; 3000 of them move it."""
    weight = parameter(torch.bfloat16)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=1e-6, warmup_steps=0))
    for step in range(3000):
        weight.grad = torch.ones_like(weight)
        optimizer.accumulate()
        optimizer.step(step)
    torch.testing.assert_close(weight.detach().float(), torch.full((4,), 0.497), atol=1e-3, rtol=0)


def test_small_micro_batches_add_up_in_bf16() -> None:
    """256 + 1 is 256 in bf16; accumulated in float32 it is not."""
    weight = parameter(torch.bfloat16)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=0.0, max_grad_norm=1e9))
    for value in (256.0, *[1.0] * 8):
        weight.grad = torch.full_like(weight, value)
        optimizer.accumulate()
    assert optimizer.step(0) == pytest.approx(264 * 2)


def test_warm_up_is_linear_from_a_tenth() -> None:
    optimizer = Optimizer({"w": parameter(torch.float32)}, OptimizerConfig(lr=1.0, warmup_steps=50))
    assert [optimizer.lr(step) for step in (0, 25, 50, 500)] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert Optimizer({"w": parameter(torch.float32)}, OptimizerConfig(lr=1.0, warmup_steps=0)).lr(0) == 1.0


def test_gradients_are_clipped_and_their_norm_is_told() -> None:
    weight = parameter(torch.float32)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=1.0, warmup_steps=0, max_grad_norm=1.0))
    weight.grad = torch.tensor([3.0, 4.0, 0.0, 0.0])
    assert optimizer.step(0) == pytest.approx(5.0)
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_comes_back_to_the_last_digit(dtype: torch.dtype, tmp_path: Path) -> None:
    def walk(weight: nn.Parameter, optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            weight.grad = torch.randn(4, generator=generator).to(dtype)
            optimizer.accumulate()
            optimizer.step(step)

    config = OptimizerConfig(lr=1e-3, warmup_steps=4)
    straight = parameter(dtype)
    walk(straight, Optimizer({"w": straight}, config), range(8))

    first = parameter(dtype)
    before = Optimizer({"w": first}, config)
    walk(first, before, range(5))
    before.save(tmp_path / "o.safetensors")
    second = nn.Parameter(first.detach().clone())
    after = Optimizer({"w": second}, config)
    after.restore(tmp_path / "o.safetensors")
    walk(second, after, range(5, 8))
    assert torch.equal(straight, second)


def test_all_state_comes_back_to_where_the_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`step` too: fused AdamW on a GPU refuses a step count that is on the CPU."""
    moved = []

    class Elsewhere:
        def to(self, device: torch.device) -> torch.Tensor:
            moved.append(device)
            return torch.zeros((), device=device)

    keys = ("step/w", "exp_avg/w", "exp_avg_sq/w")
    monkeypatch.setattr("tiltlab.optimizer.load_file", lambda path: {key: Elsewhere() for key in keys})
    weight = parameter(torch.float32)
    Optimizer({"w": weight}, OptimizerConfig()).restore(tmp_path / "o.safetensors")
    assert moved == [weight.device] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1e-3}, "lr must be a finite number and not negative, got -0.001"),
        ({"lr": math.nan}, "lr must be"),
        ({"lr": math.inf}, "lr must be"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1"),
        ({"betas": (-0.1, 0.9)}, "betas must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"warmup_start": 1.5}, "warmup_start must be from 0 to 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be above 0"),
    ],
)
def test_settings_that_no_optimiser_can_use_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)


def test_gradients_may_be_left_unclipped() -> None:
    assert OptimizerConfig(max_grad_norm=math.inf, warmup_start=1.0, betas=(0.0, 0.0)).max_grad_norm == math.inf
