"""What AdamW remembers of each weight, in one of three places: beside the weights, in host memory, or in 8 bits.

Each takes the same step, by the same kernel of torch on float32 numbers; they differ in where these lie between two
steps. So `device` and `host` come to the same weights to the last bit (tested on CPU), and `8bit` differs by how its
moments are rounded (Dettmers et al. 2021, arXiv 2110.02861, as torchao has it).

Left out on purpose: AdamW on the CPU for weights on a GPU. It would save sending moments both ways and would not be the
same to the last bit.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from tiltlab.errors import UserError

Moments = tuple[float, float]
"""Decay rates of the two moments."""

PIECE = 1 << 26
"""Numbers of one weight that are on a GPU at a time, of its master and of each moment: 0.8 GB between them. A whole
embedding of 128 256 tokens would be 5 GB."""

AHEAD = 2
"""Pieces that are on a GPU at a time: one is stepped while the next comes and the last goes."""

QUANTISED = 4096
BLOCK = 256
"""A weight of at least QUANTISED numbers, in whole blocks of BLOCK, has moments of 8 bits, each block with a scale of
its own; smaller ones, norms and biases, stay float32, as in torchao and bitsandbytes."""


@dataclass(frozen=True)
class Slot:
    """One weight and what AdamW remembers of it.

    weight: as the model has it, of any floating dtype; a piece of it, while it is stepped in pieces.
    master: the same in float32; the weight itself where that is float32.
    exp_avg, exp_avg_sq: the moments, of the weight's shape.
    step: float32 [], how many steps it has taken; on the weight's device.
    """

    weight: Tensor
    master: Tensor
    exp_avg: Any
    exp_avg_sq: Any
    step: Tensor

    @property
    def is_copied(self) -> bool:
        """Whether the master is a copy."""
        return self.master is not self.weight


@dataclass(frozen=True)
class Rates:
    """What a step goes by besides gradients: see `OptimizerConfig`."""

    lr: float
    betas: Moments
    weight_decay: float


class State(Protocol):
    """Slots by name, and how they take a step."""

    @property
    def slots(self) -> Mapping[str, Slot]:
        """By the names of the weights, in their order."""
        ...

    def step(self, gradients: Mapping[str, Tensor], rates: Rates) -> None:
        """Update the weights that have a gradient.

        gradients: float32, by name, on the weights' device; left as they are.
        """
        ...


@torch.no_grad()
def take_step(slots: Sequence[Slot], gradients: Sequence[Tensor], rates: Rates) -> None:
    """One AdamW step of torch's fused kernel: masters, moments and weights are written in place.

    slots: of which all tensors are float32, but for the weights, and on one device.
    gradients: of each, float32.
    """
    adamw(
        [slot.master for slot in slots],
        list(gradients),
        [slot.exp_avg for slot in slots],
        [slot.exp_avg_sq for slot in slots],
        [],
        [slot.step for slot in slots],
        fused=True,
        amsgrad=False,
        beta1=rates.betas[0],
        beta2=rates.betas[1],
        lr=rates.lr,
        weight_decay=rates.weight_decay,
        eps=1e-8,
        maximize=False,
    )
    for slot in slots:
        if slot.is_copied:
            slot.weight.copy_(slot.master)


class OnDevice:
    """Masters and moments beside the weights: 12 bytes a bf16 weight, 8 a float32 one.

    weights: by name, in a fixed order.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.slots = {name: _slot(weight) for name, weight in weights.items()}

    def step(self, gradients: Mapping[str, Tensor], rates: Rates) -> None:
        """All at once (`State.step`)."""
        if gradients:
            take_step([self.slots[name] for name in gradients], list(gradients.values()), rates)


class OnHost:
    """Masters and moments in host memory, pinned where the weights are on a GPU; sent there and back piece by piece.

    weights: by name, in a fixed order.

    While one piece is stepped, the next is on its way there and the last on its way back, each on a stream of its own.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.slots = {name: _on_host(_slot(weight)) for name, weight in weights.items()}

    def step(self, gradients: Mapping[str, Tensor], rates: Rates) -> None:
        """Weight by weight (`State.step`)."""
        pieces = [piece for name, gradient in gradients.items() for piece in _pieces(self.slots[name], gradient)]
        if pieces and pieces[0][0].weight.is_cuda:
            _stepped_by_streams(pieces, rates)
        else:
            for slot, gradient in pieces:
                take_step([slot], [gradient], rates)
        for name in gradients:
            self.slots[name].step.add_(1)


class In8Bits:
    """Masters beside the weights and moments of 8 bits: 6 bytes a bf16 weight. An ablation.

    weights: by name, in a fixed order.

    Raises UserError where torchao is not installed.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        require_torchao()
        from torchao.optim.subclass_8bit import OptimState8bit

        self.slots = {}
        for name, weight in weights.items():
            slot = _slot(weight)
            if weight.numel() >= QUANTISED and weight.numel() % BLOCK == 0:
                signed, positive = (
                    OptimState8bit.zeros(weight.shape, sign, BLOCK, weight.device, torch.float32)
                    for sign in (True, False)
                )
                slot = replace(slot, exp_avg=signed, exp_avg_sq=positive)
            self.slots[name] = slot

    def step(self, gradients: Mapping[str, Tensor], rates: Rates) -> None:
        """Weight by weight (`State.step`): the moments are float32 for as long as their step takes."""
        for name, gradient in gradients.items():
            slot = self.slots[name]
            if not _is_quantised(slot.exp_avg):
                take_step([slot], [gradient], rates)
                continue
            wide = replace(slot, exp_avg=slot.exp_avg.dequantize(), exp_avg_sq=slot.exp_avg_sq.dequantize())
            take_step([wide], [gradient], rates)
            with torch.no_grad():
                slot.exp_avg.copy_(wide.exp_avg)
                slot.exp_avg_sq.copy_(wide.exp_avg_sq)


def state_of(kind: str, weights: Mapping[str, Tensor]) -> State:
    """The state of a kind, of weights that took no step yet.

    kind: "device", "host" or "8bit".
    weights: by name, in a fixed order.

    Raises UserError for one that needs what is not installed.
    """
    kinds: dict[str, Callable[[Mapping[str, Tensor]], State]]
    kinds = {"device": OnDevice, "host": OnHost, "8bit": In8Bits}
    return kinds[kind](weights)


def device_bytes(kind: str, itemsize: int) -> int:
    """Bytes a trained weight on its device between two steps, besides itself: master and moments, no gradient.

    kind: "device", "host" or "8bit".
    itemsize: bytes of the weight itself, 2 for bfloat16.
    """
    master = 4 if itemsize < 4 else 0
    return {"device": 8 + master, "host": 0, "8bit": 2 + master}[kind]


def require_torchao() -> None:
    """Raises UserError where moments of 8 bits cannot be had."""
    try:
        import torchao.optim  # noqa: F401
    except ImportError as error:
        raise UserError(
            "train.optimizer.state 8bit needs torchao; `pip install torchao`, or choose device or host"
        ) from error


def saved(slot: Slot) -> dict[str, Tensor]:
    """The tensors of a slot that are to be saved, by what they are."""
    tensors = {"step": slot.step}
    for kind, moment in (("exp_avg", slot.exp_avg), ("exp_avg_sq", slot.exp_avg_sq)):
        coded = _is_quantised(moment)
        tensors |= {f"{kind}.codes": moment.codes, f"{kind}.scale": moment.scale} if coded else {kind: moment}
    return tensors | ({"master": slot.master} if slot.is_copied else {})


def _is_quantised(moment: Any) -> bool:
    return hasattr(moment, "codes")


def _slot(weight: Tensor) -> Slot:
    master = weight if weight.dtype == torch.float32 else weight.detach().float()
    first, second = (torch.zeros_like(weight, dtype=torch.float32, requires_grad=False) for _ in range(2))
    return Slot(weight, master, first, second, torch.zeros((), device=weight.device))


def _on_host(slot: Slot) -> Slot:
    """The same with master and moments in host memory."""
    if not slot.weight.is_cuda:
        return slot
    moved = {"exp_avg": slot.exp_avg, "exp_avg_sq": slot.exp_avg_sq}
    moved |= {"master": slot.master} if slot.is_copied else {}
    return replace(slot, **{name: tensor.cpu().pin_memory() for name, tensor in moved.items()})


def _pieces(slot: Slot, gradient: Tensor) -> Iterator[tuple[Slot, Tensor]]:
    """A slot and its gradient, on a GPU in pieces of at most PIECE numbers; with step counts of their own."""
    if slot.weight.is_cuda and slot.weight.is_contiguous() and slot.weight.numel() > PIECE:
        yield from _split(slot, gradient)
    else:
        yield replace(slot, step=slot.step.clone()), gradient


@torch.no_grad()
def _split(slot: Slot, gradient: Tensor) -> list[tuple[Slot, Tensor]]:
    """Views of some rows each, of as many as have PIECE numbers between them, or of one."""
    rows = max(1, PIECE // slot.weight[0].numel())
    parts = [tensor.split(rows) for tensor in (slot.weight, slot.exp_avg, slot.exp_avg_sq, gradient)]
    masters = slot.master.split(rows) if slot.is_copied else parts[0]
    return [
        (Slot(weight, master, first, second, slot.step.clone()), own)
        for weight, first, second, own, master in zip(*parts, masters, strict=True)
    ]


def _stepped_by_streams(pieces: Sequence[tuple[Slot, Tensor]], rates: Rates) -> None:
    """Each piece to the GPU, stepped, and back to where it was. Returns once all are back."""
    device = pieces[0][0].weight.device
    there, back, here = torch.cuda.Stream(device), torch.cuda.Stream(device), torch.cuda.current_stream(device)
    leaving: deque[tuple[torch.cuda.Event, Slot]] = deque()  # a slot is kept until its copies are done
    for slot, gradient in pieces:
        if len(leaving) == AHEAD:
            leaving.popleft()[0].synchronize()
        names = ["exp_avg", "exp_avg_sq", *(["master"] if slot.is_copied else [])]
        with torch.cuda.stream(there):
            moved = replace(slot, **{name: getattr(slot, name).to(device, non_blocking=True) for name in names})
        here.wait_stream(there)
        take_step([moved], [gradient], rates)
        back.wait_stream(here)
        with torch.cuda.stream(back):
            for name in names:
                getattr(slot, name).copy_(getattr(moved, name), non_blocking=True)
            leaving.append((back.record_event(), moved))
    for done, _ in leaving:
        done.synchronize()
