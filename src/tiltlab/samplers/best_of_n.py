"""The best of several plain samples, and the answer that most of them give."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tiltlab.models.base import LanguageModel
from tiltlab.samplers.base import GradeFn, Samples, drawn_tokens
from tiltlab.samplers.temperature import Temperature
from tiltlab.types import Grade, Prompt, Rollout


@dataclass(frozen=True)
class BestOfN:
    """Targets, exactly, the distribution of the best of `of` draws from p: by log p, by log p a token, or by reward.

    of: draws that each response is chosen from, at least 1.
    by: what makes one better: "logp", "mean_logp" or "reward".

    A response at rank F (share of p's mass that scores no higher; ties to the first drawn) has density `of` F^(of - 1)
    against p. Responses that were truncated, or could not be graded, lose to any other.
    """

    of: int
    by: Literal["logp", "mean_logp", "reward"] = "logp"

    def __post_init__(self) -> None:
        if self.of < 1:
            raise ValueError(f"best of n needs n of at least 1, got {self.of}")

    def drawn(self, n: int) -> int:
        """`of` for each response."""
        return n * self.of

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
        """n responses to each prompt, each chosen from draws of its own (see `Sampler`); graded only by reward."""
        if self.by == "reward" and grade_fn is None:
            raise ValueError("best of n by reward needs a grade_fn")

        def best(p: int, group: list[Rollout]) -> Rollout:
            grades = grade_fn([p] * len(group), group) if grade_fn and self.by == "reward" else [None] * len(group)
            return max(zip(group, grades, strict=True), key=lambda pair: self._score(*pair))[0]

        return _chosen(model, prompts, n, self.of, max_tokens, seed, best)

    def _score(self, rollout: Rollout, grade: Grade | None) -> float:
        value = grade.reward if grade else sum(rollout.logprobs)
        if self.by == "mean_logp":
            value /= len(rollout.tokens)
        return value if rollout.complete and not math.isnan(value) else -math.inf


@dataclass(frozen=True)
class Majority:
    """Targets, exactly, the distribution of the first of `of` draws from p whose answer is the most frequent one among
    them (self-consistency: Wang et al. 2022, arXiv 2203.11171).

    of: draws that vote on each response, at least 1.

    Responses without an answer cast no vote; ties go to the answer that was drawn first. Where nobody votes, the first
    draw is returned.
    """

    of: int

    def __post_init__(self) -> None:
        if self.of < 1:
            raise ValueError(f"a majority needs at least 1 vote, got {self.of}")

    def drawn(self, n: int) -> int:
        """`of` for each response."""
        return n * self.of

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
        """n responses to each prompt, each chosen by a vote of its own (see `Sampler`); answers are the grades'."""
        if grade_fn is None:
            raise ValueError("a majority needs a grade_fn, to read answers")

        def voted(p: int, group: list[Rollout]) -> Rollout:
            answers = [grade.answer for grade in grade_fn([p] * len(group), group)]
            votes = Counter(answer for answer in answers if answer is not None)
            return group[answers.index(votes.most_common(1)[0][0])] if votes else group[0]

        return _chosen(model, prompts, n, self.of, max_tokens, seed, voted)


def _chosen(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    n: int,
    of: int,
    max_tokens: int,
    seed: int,
    choose: Callable[[int, list[Rollout]], Rollout],
) -> Samples:
    """n responses a prompt, each chosen from `of` draws of its own."""
    samples = Temperature()(model, prompts, n=n * of, max_tokens=max_tokens, seed=seed)
    chosen = [[choose(p, group[i : i + of]) for i in range(0, n * of, of)] for p, group in enumerate(samples.rollouts)]
    info = replace(samples.info, drawn=drawn_tokens(samples.rollouts))
    return Samples(chosen, info)
