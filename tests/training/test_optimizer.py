import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tiltlab.errors import UserError
from tiltlab.training.optimizer import Optimizer, OptimizerConfig


def parameter(dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.full((4,), 0.5, dtype=dtype))


def backward(weight: nn.Parameter, gradient: torch.Tensor) -> None:
    """A backward pass with this gradient, in the weight's own dtype."""
    (weight * gradient.to(weight.dtype)).sum().backward()


def test_steps_far_below_the_spacing_of_bf16_add_up() -> None:
    """At lr 1e-6 a step on a bf16 weight of 0.5 (spacing 2e-3) would round away; 3000 of them move it."""
    weight = parameter(torch.bfloat16)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=1e-6, warmup_steps=0))
    for step in range(3000):
        backward(weight, torch.ones(4))
        optimizer.step(step)
    torch.testing.assert_close(weight.detach().float(), torch.full((4,), 0.497), atol=1e-3, rtol=0)


def test_small_micro_batches_add_up_in_bf16() -> None:
    """256 + 1 is 256 in bf16; accumulated in float32 it is not."""
    weight = parameter(torch.bfloat16)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=0.0, max_grad_norm=1e9))
    for value in (256.0, *[1.0] * 8):
        backward(weight, torch.full((4,), value))
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
            backward(weight, torch.randn(4, generator=generator))
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


def test_all_state_comes_back_to_where_it_was(tmp_path: Path) -> None:
    """`step` too: fused AdamW on a GPU refuses a step count that is on the CPU. So tensors are filled, not replaced."""
    weight = parameter(torch.bfloat16)
    optimizer = Optimizer({"w": weight}, OptimizerConfig(lr=1.0, warmup_steps=0))
    backward(weight, torch.ones(4))
    optimizer.step(0)
    optimizer.save(tmp_path / "o.safetensors")
    before = {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in optimizer._tensors().items()}
    backward(weight, -torch.ones(4))
    optimizer.step(1)
    optimizer.restore(tmp_path / "o.safetensors")
    assert before.keys() == {"step/w", "exp_avg/w", "exp_avg_sq/w", "master/w"}
    for key, tensor in optimizer._tensors().items():
        assert tensor.data_ptr() == before[key][0]
        assert torch.equal(tensor, before[key][1])


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshapen", "truncated", "empty", "gone"])
def test_state_that_is_not_whole_is_refused_and_changes_nothing(
    damage: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    weight, path = parameter(dtype), tmp_path / "o.safetensors"
    optimizer = Optimizer({"w": weight}, OptimizerConfig())
    backward(weight, torch.ones(4))
    optimizer.step(0)
    optimizer.save(path)
    tensors = load_file(path)
    match damage:
        case "missing":
            save_file({k: v for k, v in tensors.items() if k != "exp_avg_sq/w"}, path)
        case "unexpected":
            save_file(tensors | {"exp_avg/v": torch.zeros(4)}, path)
        case "misshapen":
            save_file(tensors | {"exp_avg/w": torch.zeros(3)}, path)
        case "truncated":
            path.write_bytes(path.read_bytes()[:-8])
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
    other = Optimizer({"w": parameter(dtype)}, OptimizerConfig())
    with pytest.raises(UserError, match=r"o\.safetensors"):
        other.restore(path)
    other.save(tmp_path / "other.safetensors")
    assert load_file(tmp_path / "other.safetensors")["step/w"] == 0


def test_a_weight_that_no_gradient_reached_is_saved_as_it_would_begin(tmp_path: Path) -> None:
    def walk(used: nn.Parameter, idle: nn.Parameter, optimizer: Optimizer, late: bool) -> None:
        for weight in (used, idle) if late else (used,):
            weight.grad = torch.ones_like(weight)
        optimizer.step(0)

    def fresh() -> tuple[nn.Parameter, nn.Parameter, Optimizer]:
        used, idle = parameter(torch.float32), parameter(torch.float32)
        return used, idle, Optimizer({"used": used, "idle": idle}, OptimizerConfig())

    straight, stopped, again = fresh(), fresh(), fresh()
    for run in (straight, stopped):
        walk(*run, late=False)
    stopped[2].save(tmp_path / "o.safetensors")
    again[2].restore(tmp_path / "o.safetensors")
    again[0].data.copy_(stopped[0])
    for run in (straight, again):
        walk(*run, late=True)
    assert torch.equal(straight[0], again[0])
    assert torch.equal(straight[1], again[1])
