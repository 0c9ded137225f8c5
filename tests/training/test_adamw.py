"""Where AdamW keeps what it remembers: the same steps on the device and on the host, nearly the same in 8 bits."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.models import tiny
from tiltlab.errors import UserError
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, policy_from
from tiltlab.training import adamw
from tiltlab.training.optimizer import Optimizer, OptimizerConfig

SHAPES = {"embedding": (37, 33), "norm": (33,), "bias": (5,), "one": (1,), "idle": (3, 3), "head": (64, 96)}
"""Of which one has no gradient, one can be in 8 bits, and most are no multiple of what a vector register holds."""

DTYPES = [torch.float32, torch.bfloat16]


def weights(dtype: torch.dtype, device: str = "cpu") -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype)) for name, shape in SHAPES.items()
    }


def gradients(step: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    made = {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: gradient for name, gradient in made.items() if name != "idle"}


def walk(own: dict[str, nn.Parameter], optimizer: Optimizer, steps: range) -> list[float]:
    """Two micro-batches a step. Gradients are large at first, so that they are clipped, and small later."""
    norms = []
    for step in steps:
        for micro_batch in range(2):
            for name, gradient in gradients(2 * step + micro_batch, 0.1**step).items():
                (own[name] * gradient.to(own[name].device, own[name].dtype)).sum().backward()
        norms.append(optimizer.step(step))
    return norms


def config(state: Any = "device", **options: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"lr": 1e-2, "warmup_steps": 4, "weight_decay": 0.1, "state": state} | options)


def by_torch(own: dict[str, nn.Parameter], steps: range) -> list[float]:
    """What the optimizer was before it had states: torch's own class on float32 masters, gradients added up by hand."""
    settings = config()
    masters = {name: nn.Parameter(weight.detach().float().clone()) for name, weight in own.items()}
    optimizer = torch.optim.AdamW(masters.values(), lr=1.0, betas=settings.betas, weight_decay=0.1, fused=True)
    norms = []
    for step in steps:
        for micro_batch in range(2):
            for name, gradient in gradients(2 * step + micro_batch, 0.1**step).items():
                wide = gradient.to(own[name].dtype).float()
                masters[name].grad = wide if masters[name].grad is None else masters[name].grad + wide
        norms.append(float(nn.utils.clip_grad_norm_(masters.values(), settings.max_grad_norm)))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, 0.1 + 0.9 * step / 4)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(masters[name])
    return norms


def require_equal(one: dict[str, nn.Parameter], other: dict[str, nn.Parameter]) -> None:
    for name in SHAPES:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("state", ["device", "host"])
def test_steps_are_those_of_torch_s_adamw_to_the_last_bit(state: str, dtype: torch.dtype) -> None:
    ours, theirs = weights(dtype), weights(dtype)
    norms = walk(ours, Optimizer(ours, config(state)), range(8))
    assert norms == by_torch(theirs, range(8))
    assert norms[0] > 1 > norms[-1]  # clipped, and not
    require_equal(ours, theirs)
    assert not torch.equal(ours["head"], weights(dtype)["head"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("first", "second"), [("device", "host"), ("host", "device")])
def test_a_run_goes_on_with_its_state_held_elsewhere(
    first: str, second: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    straight, stopped = weights(dtype), weights(dtype)
    walk(straight, Optimizer(straight, config("device")), range(8))
    before = Optimizer(stopped, config(first))
    walk(stopped, before, range(5))
    before.save(tmp_path / "o.safetensors")
    again = {name: nn.Parameter(weight.detach().clone()) for name, weight in stopped.items()}
    after = Optimizer(again, config(second))
    after.restore(tmp_path / "o.safetensors")
    walk(again, after, range(5, 8))
    require_equal(straight, again)


def test_a_whole_model_trains_the_same_from_the_host() -> None:
    found = []
    for state in ("device", "host"):
        base = tiny.model(tiny.llama().to(torch.bfloat16).requires_grad_(False))
        with policy_from(base, ModelConfig(), seed=0) as (policy, _):
            optimizer = Optimizer(policy.trainable(), config(state))
            rollouts = policy.generate(["abc", "a"], n=4, max_tokens=10, seed=0)
            for step in range(3):
                policy.logprobs(["abc", "a"], rollouts).total_PG.sum().backward()
                optimizer.step(step)
            found.append(policy.fingerprint())
    assert found[0] == found[1]


# Hooks


def test_gradients_of_bf16_weights_leave_the_weights_as_they_come() -> None:
    """During the backward pass, one weight after the other, and not only at its end."""
    model: HFModel = tiny.model(tiny.llama().to(torch.bfloat16))
    policy = model.trainable()
    optimizer = Optimizer(policy, config())
    held: list[int] = []
    for parameter in policy.values():
        parameter.register_post_accumulate_grad_hook(
            lambda _: held.append(sum(p.grad is not None for p in policy.values()))
        )
    model.logprobs(["ab"], model.generate(["ab"], n=4, max_tokens=8, seed=0)).total_PG.sum().backward()
    assert held == [0] * len(policy)
    assert optimizer.step(0) > 0


def test_hooks_add_up_what_whole_backward_passes_left() -> None:
    """Against gradients that stay where autograd puts them, moved by hand after each pass."""
    by_hooks, by_hand = (tiny.model(tiny.llama().to(torch.bfloat16)) for _ in range(2))
    optimizer = Optimizer(by_hooks.trainable(), config())
    rollouts = by_hand.generate(["ab", "cd"], n=4, max_tokens=8, seed=0)
    moved: dict[str, Tensor] = {}
    for rows in (rollouts[:1], rollouts[1:]):
        for model in (by_hooks, by_hand):
            model.logprobs(["ab"], rows).total_PG.sum().backward()
        for name, parameter in by_hand.trainable().items():
            gradient = parameter.grad.float()  # type: ignore[union-attr]
            moved[name] = moved[name] + gradient if name in moved else gradient
            parameter.grad = None
    found = optimizer._gradients()
    assert found.keys() == moved.keys()
    for name, gradient in moved.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_gradients_count_for_nothing(dtype: torch.dtype) -> None:
    straight, other = weights(dtype), weights(dtype)
    walk(straight, Optimizer(straight, config()), range(2))
    optimizer = Optimizer(other, config())
    for name, gradient in gradients(77).items():
        (other[name] * gradient.to(dtype)).sum().backward()
    optimizer.drop()
    walk(other, optimizer, range(2))
    require_equal(straight, other)


# 8 bits

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")

BOUND = 0.05
"""Of the way that the weights have gone, how far moments of 8 bits may end from those of 32. Measured: .012, after 20
steps as after 1000."""


def wandering(weight: nn.Parameter, steps: int) -> Iterator[int]:
    """Noisy gradients towards a point that is far away, of very different size by row."""
    generator = torch.Generator().manual_seed(5)
    size = torch.logspace(-4, 0, len(weight))[:, None]
    for step in range(steps):
        noise = torch.randn(weight.shape, generator=generator)
        (weight * (size * (noise - 0.5)).to(weight.dtype)).sum().backward()
        yield step


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_of_8_bits_end_near_those_of_32(dtype: torch.dtype) -> None:
    ends = []
    for state in ("device", "8bit"):
        weight = nn.Parameter(torch.zeros(64, 96, dtype=dtype))
        optimizer = Optimizer({"w": weight}, config(state, lr=1e-3, warmup_steps=0, weight_decay=0.0))
        for step in wandering(weight, 200):
            optimizer.step(step)
        ends.append(weight.detach().float())
    assert 0 < (ends[0] - ends[1]).norm() < BOUND * ends[0].norm()


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_of_8_bits_take_what_they_say_and_come_back_to_the_last_digit(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    straight, stopped = weights(dtype), weights(dtype)
    walk(straight, Optimizer(straight, config("8bit")), range(8))
    before = Optimizer(stopped, config("8bit"))
    walk(stopped, before, range(5))
    before.save(tmp_path / "o.safetensors")
    file = load_file(tmp_path / "o.safetensors")
    assert {"exp_avg.codes/head", "exp_avg_sq.scale/head", "exp_avg/norm"} <= file.keys()
    assert file["exp_avg.codes/head"].element_size() == 1
    again = {name: nn.Parameter(weight.detach().clone()) for name, weight in stopped.items()}
    after = Optimizer(again, config("8bit"))
    after.restore(tmp_path / "o.safetensors")
    walk(again, after, range(5, 8))
    require_equal(straight, again)


@needs_torchao
def test_a_state_of_8_bits_is_not_taken_for_one_of_32(tmp_path: Path) -> None:
    own = weights(torch.float32)
    Optimizer(own, config("8bit")).save(tmp_path / "o.safetensors")
    with pytest.raises(UserError, match="lacks 2 of its tensors"):
        Optimizer(own, config("host")).restore(tmp_path / "o.safetensors")


def test_without_torchao_8_bits_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchao", "torchao.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="state 8bit needs torchao; `pip install torchao`, or choose device or host"):
        config("8bit").require_installed()
    config("host").require_installed()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_arithmetic_is_what_a_state_holds(dtype: torch.dtype) -> None:
    own = weights(dtype)
    held = sum(t.nbytes for t in Optimizer(own, config())._tensors().values()) - 4 * len(own)  # but for step counts
    told = adamw.device_bytes("device", dtype.itemsize) * sum(weight.numel() for weight in own.values())
    assert held == told


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("piece", [1 << 26, 100])
def test_on_a_gpu_too_the_host_s_steps_are_the_device_s(
    dtype: torch.dtype, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw, "PIECE", piece)
    ours, theirs = weights(dtype, "cuda"), weights(dtype, "cuda")
    host = Optimizer(ours, config("host"))
    assert walk(ours, host, range(8)) == pytest.approx(walk(theirs, Optimizer(theirs, config("device")), range(8)))
    require_equal(ours, theirs)
    assert all(slot.exp_avg.is_pinned() for slot in host._state.slots.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_cover_a_weight_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a large weight is stepped in pieces: each number once, with its own gradient."""
    monkeypatch.setattr(adamw, "PIECE", 100)
    start, gradient = torch.randn(37, 33).to(dtype), torch.randn(37, 33)
    rates = adamw.Rates(1e-2, (0.9, 0.999), 0.1)
    whole, split = (adamw._slot(nn.Parameter(start.clone())) for _ in range(2))
    adamw.take_step([whole], [gradient], rates)
    pieces = adamw._split(split, gradient)
    assert [len(own) for _, own in pieces] == [3] * 12 + [1]
    for piece, own in pieces:
        adamw.take_step([piece], [own], rates)
    for name in ("weight", "master", "exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(getattr(split, name), getattr(whole, name), atol=1e-6, rtol=1e-6)
    assert split.step == 0  # whoever holds the whole counts its steps
