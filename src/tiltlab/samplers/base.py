"""What every sampler is: a frozen value that, given a model, draws n responses to each prompt."""

from collections.abc import Sequence
from typing import Protocol

from tiltlab.models.base import LanguageModel
from tiltlab.types import Prompt, Rollout


class Sampler(Protocol):
    def __call__(
        self, model: LanguageModel, prompts: Sequence[Prompt], *, n: int, max_tokens: int, seed: int
    ) -> list[list[Rollout]]: ...
