"""Trained weights in float32, of which each rank holds a part: what the optimiser steps on (models/sharded.py).

Left out on purpose: when weights are gathered, and where gradients come from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from tiltlab.system.world import World


@dataclass(frozen=True)
class Shards:
    """Weights by name, each a float32 tensor of which every rank of a world holds a part.

    Methods that say so are collectives: every rank calls them, in the same order.
    """

    tensors: Mapping[str, DTensor]
    world: World

    def parts(self) -> dict[str, Tensor]:
        """This rank's part of each weight, by name; what is written to it is the weight's. It may be empty."""
        return {name: part_of(tensor.detach()) for name, tensor in self.tensors.items()}

    def whole(self, name: str, part: Tensor) -> DTensor:
        """What a rank holds beside its part of a weight, such as a moment, as a part of a whole of that weight's shape.

        part: of the shape of this rank's part. It, or where it is on a GPU a copy, is held in host memory.
        """
        like = self.tensors[name]
        return DTensor.from_local(
            part.cpu(), self._host, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def reduced(self, name: str, gradient: Tensor | None) -> Tensor:
        """This rank's part of the sum over ranks of a weight's gradients. A collective.

        gradient: float32, of the whole weight; None where no response of this rank reached it.
        """
        like = self.tensors[name]
        if gradient is None:
            gradient = torch.zeros(like.shape, device=like.device)
        summands = DTensor.from_local(gradient, like.device_mesh, [Partial()], run_check=False)
        return part_of(summands.redistribute(placements=like.placements))

    @cached_property
    def _host(self) -> DeviceMesh:
        return init_device_mesh("cpu", (self.world.size,))

    def norm(self, part: float) -> float:
        """The norm over all parts. A collective.

        part: the norm over those of this rank.
        """
        return math.hypot(*self.world.gather(part))

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of a tensor of a weight's shape.

        whole: the same on every rank.
        """
        like = self.tensors[name]
        there = whole.to(like.device)
        return part_of(distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None))

    @torch.no_grad()
    def take(self, name: str, whole: Tensor) -> None:
        """Take a weight as it is given, the same on every rank."""
        part_of(self.tensors[name].detach()).copy_(self.part(name, whole))


def part_of(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor: all of it, where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
