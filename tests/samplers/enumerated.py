"""Languages whose responses can all be listed, and how far samples are from the distribution that they should have."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tiltlab.models.table import TableLanguage, counts, optimum, rewards_of, total_variation
from tiltlab.objective import tempered, tilted
from tiltlab.samplers.base import GradeFn, Sampler, Samples
from tiltlab.types import Grade, Rollout

LIMIT = 4
"""Tokens that hold every response of these languages (two symbols, three of them at most, and EOS): 15 responses."""

DRAWS = 16_000
"""Enough that honest noise is near .006 in total variation over 15 responses; particles of one population, which are
related, come near .01."""

CHAINS = 8_000
"""Of chains, each of which costs many draws: honest noise is near .009, and .02 can be told from a distribution
with any one of the faults below, which is off by .04 and more."""


def with_short_mode() -> TableLanguage:
    """The empty response has a third of all mass, though most responses are longer: what sharpening falls for."""
    logits = TableLanguage.random(3, symbols=2, max_symbols=3).logits.detach().clone()
    logits[:, 0] = torch.tensor([1 / 3, 1 / 3, 1 / 3]).log()
    logits[:, 1:7, 2] -= 2.0  # the longer ones do not end soon
    return TableLanguage(logits)


LANGUAGES = {
    "random 0": TableLanguage.random(0, symbols=2, max_symbols=3),
    "random 1": TableLanguage.random(1, symbols=2, max_symbols=3),
    "short mode": with_short_mode(),
}
languages = pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES.keys())


def rewards(language: TableLanguage) -> dict[str, float]:
    values = torch.rand(len(language.sequences()), generator=torch.Generator().manual_seed(5)).tolist()
    return {rollout.text: value for rollout, value in zip(language.enumerated()[0], values, strict=True)}


def grade_fn_of(language: TableLanguage) -> GradeFn:
    """Rewards by text; the answer is the first symbol, and the empty response has none."""
    table = rewards(language)

    def grade_fn(_: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
        return [Grade(table.get(r.text, 0.0), r.text[:1] or None, "wrong") for r in rollouts]

    return grade_fn


def samples_of(sampler: Sampler, language: TableLanguage, n: int = DRAWS, seed: int = 1) -> Samples:
    return sampler(language, [""], n=n, max_tokens=LIMIT, seed=seed, grade_fn=grade_fn_of(language))


def empirical(samples: Samples, language: TableLanguage) -> Tensor:
    return counts(language, samples.rollouts[0]) / len(samples.rollouts[0])


def distance(sampler: Sampler, language: TableLanguage, distribution: Tensor, n: int = DRAWS) -> float:
    return total_variation(empirical(samples_of(sampler, language, n), language), distribution).item()


def distribution_of(language: TableLanguage, alpha: float, beta: float | None = None) -> Tensor:
    objective = tempered(alpha) if beta is None else tilted(beta, alpha)
    return optimum(objective, language, rewards_of(language, rewards(language)))[0]
