"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) on float32 copies of the weights, with a linear warm-up.

Why copies: at the learning rates of RL (1e-6) an update is far below the spacing of bfloat16 numbers, so steps taken on
bf16 weights are rounded away. Where the weights are float32 already, the copy is the weight itself and costs nothing.

Left out on purpose: learning-rate decay, parameter groups. Where the copies and moments are held is for adamw.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tiltlab.models.saved import read_tensors
from tiltlab.training.adamw import Rates, require_torchao, saved, state_of

if TYPE_CHECKING:
    from tiltlab.models.shards import Shards  # with what it imports it takes a second, which one process need not wait


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

    def require_installed(self) -> None:
        """Raises UserError where `state` needs what is not installed."""
        if self.state == "8bit":
            require_torchao()


class Optimizer:
    """Gathers gradients from every backward pass as they come; call `step` once a batch.

    parameters: those to be trained, by name, in a fixed order. One optimizer at a time may have them.
    config: of AdamW.
    shards: of the same weights, where several ranks train them. Each steps on its own; `step`, `save` and `restore` are
        then collectives.

    Gradients of weights that are not float32 are moved into float32 tensors as soon as a backward pass has made them:
    adding micro-batches up in bf16 would lose the small ones, and no more than one is held in both.

    Raises UserError for a state that needs what is not installed.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, shards: "Shards | None" = None
    ) -> None:
        self.config, self._shards = config, shards
        self._parameters = dict(parameters)
        weights: Mapping[str, Tensor] = shards.parts() if shards else self._parameters
        self._state = state_of(config.state, weights)
        self._gathered: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            if parameter.dtype != torch.float32:
                parameter.register_post_accumulate_grad_hook(_gatherer(self._gathered, name))

    def lr(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        start, warmup = self.config.warmup_start, self.config.warmup_steps
        progress = min(1.0, step / warmup) if warmup else 1.0
        return self.config.lr * (start + (1 - start) * progress)

    def drop(self) -> None:
        """Forget the gradients gathered since the last step."""
        self._gathered.clear()
        for parameter in self._parameters.values():
            parameter.grad = None

    def step(self, step: int) -> float:
        """Clip the gradient, update the weights, clear the gradient. Returns its norm before clipping.

        step: number of the update, counted from 0.

        Raises FloatingPointError, with the weights untouched, where that norm is not finite.
        """
        gradients = self._gradients()
        norm = nn.utils.get_total_norm(list(gradients.values()))
        if self._shards:
            norm = norm.new_tensor(self._shards.norm(float(norm)))
        if not float(norm) < float("inf"):
            raise FloatingPointError(
                f"the gradient of step {step} has norm {float(norm)}; lower lr, or look at the scores logged so far"
            )
        scale = (self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        for gradient in gradients.values():
            gradient.mul_(scale)
        self._state.step(gradients, Rates(self.lr(step), self.config.betas, self.config.weight_decay))
        self.drop()
        return float(norm)

    @property
    def nbytes(self) -> int:
        """Bytes that `save` writes, about."""
        ranks = self._shards.world.size if self._shards else 1
        return ranks * sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    def save(self, path: Path) -> None:
        """Everything a later `restore` needs to go on to the last digit, as one safetensors file. Where the state is
        held, on the device or on the host, makes no difference to it.

        Of several ranks each writes a file of its own part, to a folder in place of the file (training/parts.py)."""
        if self._shards:
            from tiltlab.training.parts import save_parts

            save_parts(self._tensors(), self._shards, path)
        else:
            save_file({name: tensor.detach().contiguous() for name, tensor in self._tensors().items()}, path)

    def restore(self, path: Path) -> None:
        """Take up what `save` left, of however many ranks.

        Raises UserError, with nothing changed, for files that are not whole."""
        own = self._tensors()
        if self._shards or path.is_dir():
            from tiltlab.training.parts import restore_parts

            restore_parts(own, self._shards, path)
            return
        tensors = read_tensors(path, own)
        with torch.no_grad():
            for key, tensor in tensors.items():
                own[key].copy_(tensor)

    def _gradients(self) -> dict[str, Tensor]:
        """By name, in float32, of those parameters that have one, in their order."""
        found = {name: self._gathered.get(name, parameter.grad) for name, parameter in self._parameters.items()}
        if self._shards:
            return {name: self._shards.reduced(name, gradient) for name, gradient in found.items()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def _tensors(self) -> dict[str, Tensor]:
        """All there is to save, by kind and name; a weight that no gradient has reached has zeros, as AdamW would begin
        it. Of several ranks, this one's parts."""
        found = {f"{kind}/{name}": t for name, slot in self._state.slots.items() for kind, t in saved(slot).items()}
        if self._shards:  # of which the weights are the masters
            rounded = [name for name, parameter in self._parameters.items() if parameter.dtype != torch.float32]
            found |= {f"master/{name}": self._state.slots[name].master for name in rounded}
        return found


def _gatherer(gathered: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    """A hook that moves a parameter's new gradient into float32. It holds no optimizer, which holds the parameter."""

    def gather(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.float()
        parameter.grad = None
        gathered[name] = gathered[name].add_(gradient) if name in gathered else gradient

    return gather
