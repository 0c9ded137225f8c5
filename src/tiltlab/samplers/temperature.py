"""Token-by-token sampling at a temperature: the usual way, and the baseline of every other."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltlab.models.base import LanguageModel
from tiltlab.types import Prompt, Rollout


@dataclass(frozen=True)
class Temperature:
    """Targets, exactly, the product over tokens of softmax(logits / temperature).

    At temperature 1 that is the model's own law p. Below 1 it sharpens each next-token law by itself, which is *not*
    p^(1/temperature): that one weighs a token by all that can follow it, and normalises once, over whole responses.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def __call__(
        self, model: LanguageModel, prompts: Sequence[Prompt], *, n: int, max_tokens: int, seed: int
    ) -> list[list[Rollout]]:
        return model.generate(prompts, n=n, temperature=self.temperature, max_tokens=max_tokens, seed=seed)
