"""Weights that lie in host memory while nobody needs them: a frozen reference's, while its policy draws and learns.

They never change, so they are copied to the host once and only ever sent back to the GPU.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from tiltlab.models.base import LanguageModel


class Shelf:
    """Within `with shelf:` the weights are on their device, elsewhere in host memory (pinned, for a GPU).

    module: frozen, and used by nobody else. Its buffers stay where they are.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(weight, weight.device, weight.detach().cpu()) for weight in module.parameters()]
        if any(device.type == "cuda" for _, device, _ in self._kept):
            self._kept = [(weight, device, kept.pin_memory()) for weight, device, kept in self._kept]
        self._users = 0
        self._put_away()

    def __enter__(self) -> None:
        if self._users == 0:
            try:
                self.bring_back()
            except BaseException:  # memory ran out on the way: the next try is to find all of them put away
                self._put_away()
                raise
        self._users += 1

    def __exit__(self, *_: Any) -> None:
        self._users -= 1
        if self._users == 0:
            self._put_away()

    @property
    def device(self) -> torch.device:
        """Where the weights are while they are needed."""
        return self._kept[0][1]

    def bring_back(self) -> None:
        """Have the weights on their device."""
        for weight, device, kept in self._kept:
            weight.data = kept.to(device, non_blocking=True)

    def _put_away(self) -> None:
        for weight, _, kept in self._kept:
            weight.data = kept


def at_hand(model: LanguageModel) -> AbstractContextManager[None]:
    """A block in which a model's weights stay on their device, for one that would put them away after each call."""
    shelf = getattr(model, "shelf", None)
    return shelf if isinstance(shelf, Shelf) else nullcontext()
