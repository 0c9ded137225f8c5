"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) on float32 copies of the weights, with a linear warm-up.

Why copies: at the learning rates of RL (1e-6) an update is far below the spacing of bfloat16 numbers, so steps taken on
bf16 weights are rounded away. Where the weights are float32 already, the copy is the weight itself and costs nothing.

Left out on purpose: learning-rate decay, parameter groups, 8-bit states.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tiltlab.models.saved import read_tensors


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as in the paper's protocol, except for weight decay.

    lr: learning rate, after the warm-up.
    betas: decay rates of the two moments.
    weight_decay: decoupled, a share of lr.
    warmup_steps: updates over which the learning rate rises linearly.
    warmup_start: share of lr that it rises from.
    max_grad_norm: a gradient of a larger norm is scaled down to it; infinity for no clipping.
    state: where moments and float32 copies of the weights are: on the weights' device, in host memory (the same steps
        to the last bit on CPU), or on the device with moments of 8 bits (an ablation: other steps).

    Weight decay is off (0.01 there): it pulls towards zero and not towards the reference, so it moves every
    optimum, the null control's included.

    Raises ValueError for values that no optimiser can use. lr = 0 passes: the loop can then be watched without moving.
    """

    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup_steps: int = 50
    warmup_start: float = 0.1
    max_grad_norm: float = 1.0
    state: Literal["device", "host", "8bit"] = "device"

    def __post_init__(self) -> None:
        # Comparisons are written so that NaN fails them.
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"lr must be a finite number and not negative, got {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {list(self.betas)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a finite number and not negative, got {self.weight_decay}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.warmup_start <= 1:
            raise ValueError(f"warmup_start must be from 0 to 1, got {self.warmup_start}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 (.inf for no clipping), got {self.max_grad_norm}")


class Optimizer:
    """Call `accumulate` after every backward pass and `step` once a batch.

    parameters: those to be trained, by name, in a fixed order.
    config: of AdamW.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> None:
        self.config = config
        self._parameters = dict(parameters)
        self._masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self._parameters.items()
        }
        self._adamw = torch.optim.AdamW(
            self._masters.values(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def lr(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        start, warmup = self.config.warmup_start, self.config.warmup_steps
        progress = min(1.0, step / warmup) if warmup else 1.0
        return self.config.lr * (start + (1 - start) * progress)

    def accumulate(self) -> None:
        """Move gradients into float32: adding micro-batches up in bf16 would lose the small ones."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self, step: int) -> float:
        """Clip the gradient, update the weights, clear the gradient. Returns its norm before clipping.

        step: number of the update, counted from 0.

        Raises FloatingPointError, with the weights untouched, where that norm is not finite.
        """
        norm = float(nn.utils.clip_grad_norm_(self._masters.values(), self.config.max_grad_norm))
        if not norm < float("inf"):
            raise FloatingPointError(
                f"the gradient of step {step} has norm {norm}; lower lr, or look at the scores logged so far"
            )
        for group in self._adamw.param_groups:
            group["lr"] = self.lr(step)
        self._adamw.step()
        self._adamw.zero_grad()
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                if self._masters[name] is not parameter:
                    parameter.copy_(self._masters[name])
        return norm

    @property
    def nbytes(self) -> int:
        """Bytes that `save` writes, about: two moments a weight, and the copy where there is one."""
        copies = [3 if self._masters[name] is not p else 2 for name, p in self._parameters.items()]
        return sum(4 * n * p.numel() for n, p in zip(copies, self._parameters.values(), strict=True))

    def save(self, path: Path) -> None:
        """Everything a later `restore` needs to go on to the last digit, as one safetensors file."""
        save_file({name: tensor.detach().contiguous() for name, tensor in self._tensors().items()}, path)

    def restore(self, path: Path) -> None:
        """Take up what `save` left. Raises UserError, with nothing changed, for a file that is not whole."""
        tensors = read_tensors(path, self._tensors())
        with torch.no_grad():
            for key, value in tensors.items():
                kind, _, name = key.partition("/")
                master = self._masters[name]
                if kind == "master":
                    master.copy_(value)
                else:
                    self._adamw.state[master][kind] = value.to(master.device)  # `step` too: fused AdamW wants it there

    def _tensors(self) -> dict[str, Tensor]:
        """All there is to save, by name; a weight that no gradient has reached has zeros, as AdamW would begin it."""
        tensors: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            state = self._adamw.state.get(master) or _first_state(master)
            tensors |= {f"{key}/{name}": value for key, value in state.items()}
            if master is not self._parameters[name]:
                tensors[f"master/{name}"] = master
        return tensors


def _first_state(master: Tensor) -> dict[str, Tensor]:
    zero = torch.zeros((), device=master.device)
    return {"step": zero.clone(), "exp_avg": zero.expand(master.shape), "exp_avg_sq": zero.expand(master.shape)}
