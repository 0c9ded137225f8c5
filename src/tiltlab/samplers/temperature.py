"""Token-by-token sampling at a temperature: the usual way, and the baseline of every other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.models.decoding import draw
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, decoded_here, drawn_tokens, in_turns, stopwatch
from tiltlab.types import Prompt


@dataclass(frozen=True)
class Temperature:
    """Targets, exactly, the product over tokens of softmax(logits / temperature), cut to its `top_k` likeliest tokens
    and then to the fewest whose mass reaches `top_p`, and normalised again.

    temperature: above 0.
    top_p: above 0 and at most 1, which cuts nothing (nucleus sampling: Holtzman et al. 2019, arXiv 1904.09751).
    top_k: at least 1; None cuts nothing (Fan et al. 2018, arXiv 1805.04833).

    At temperature 1, uncut, that is the model's own distribution p. Below 1 it sharpens each next-token distribution by
    itself, which is *not* p^(1/temperature): that one weighs a token by all that can follow it, and normalises once,
    over whole responses.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def drawn(self, n: int) -> int:
        """One for each response."""
        return n

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        grade_fn: GradeFn | None = None,
    ) -> Samples:
        """n responses to each prompt (see `Sampler`); their logprobs are those of the model at temperature 1, uncut."""
        if self.top_p < 1 or self.top_k is not None:
            return self._cut(model, prompts, n, max_tokens, seed)
        with stopwatch() as seconds:
            rollouts = model.generate(prompts, n=n, temperature=self.temperature, max_tokens=max_tokens, seed=seed)
            info = Info(drawn_tokens(rollouts), seconds=seconds())
        return Samples(rollouts, info)

    def _cut(self, model: LanguageModel, prompts: Sequence[Prompt], n: int, max_tokens: int, seed: int) -> Samples:
        streams = Streams(seed, prompts, n)

        def run(some: Sequence[Prompt], first: int) -> Samples:
            return self._turn(model, some, n, max_tokens, streams, first * n)

        return in_turns(run, prompts, max(1, model.capacity(prompts, max_tokens) // n))

    def _turn(
        self, model: LanguageModel, prompts: Sequence[Prompt], n: int, max_tokens: int, streams: Streams, first: int
    ) -> Samples:
        """Responses to some of the prompts, side by side. first: the number of their first row among all."""
        with stopwatch() as seconds:
            decoder = model.decoder(prompts, n=n, max_tokens=max_tokens)
            size = len(prompts) * n
            going = list(range(size))
            tokens: list[list[int]] = [[] for _ in range(size)]
            logps: list[list[float]] = [[] for _ in range(size)]
            for _ in range(max_tokens):
                logits = decoder.next_logits()
                uniform_N = streams.next([first + row for row in going]).to(logits.device)
                drawn = draw(self._kept(logits), uniform_N)
                logp_N = logits.log_softmax(-1).gather(-1, drawn.token_N[:, None])[:, 0]
                for row, token, logp in zip(going, drawn.token_N.tolist(), logp_N.tolist(), strict=True):
                    tokens[row].append(token)
                    logps[row].append(logp)
                decoder.append(drawn.token_N)
                stay = (~decoder.ends_V[drawn.token_N]).nonzero()[:, 0]
                if len(stay) == 0:
                    break
                if len(stay) < len(going):
                    decoder.select(stay)
                    going = [going[i] for i in stay.tolist()]
            flat = model.rollouts(list(zip(tokens, logps, strict=True)))
            groups = [flat[i : i + n] for i in range(0, size, n)]
            info = Info(
                drawn_tokens(groups), seconds=seconds(), warnings=decoded_here(model, "a sampler with top_p or top_k")
            )
        return Samples(groups, info)

    def _kept(self, logits_NV: Tensor) -> Tensor:
        """logits / temperature, -inf where a token is cut."""
        scaled_NV = logits_NV / self.temperature
        ranked = scaled_NV.sort(-1, descending=True)
        keep_NV = torch.ones_like(ranked.values, dtype=torch.bool)
        if self.top_k is not None:
            keep_NV[:, self.top_k :] = False
        probs_NV = ranked.values.masked_fill(~keep_NV, -torch.inf).softmax(-1)
        keep_NV &= probs_NV.cumsum(-1) - probs_NV < self.top_p  # the mass before a token does not reach it yet
        return scaled_NV.masked_fill(~torch.zeros_like(keep_NV).scatter(-1, ranked.indices, keep_NV), -torch.inf)
