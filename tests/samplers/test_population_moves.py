"""Particles that move after resampling: the distribution and Z are what they were, and fewer particles are alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from tests.models import tiny
from tests.samplers.enumerated import (
    DRAWS,
    LANGUAGES,
    LIMIT,
    distance,
    distribution_of,
    empirical,
    grade_fn_of,
    languages,
    rewards,
    samples_of,
)
from tiltlab.errors import UserError
from tiltlab.models.table import TableLanguage, counts, rewards_of, total_variation
from tiltlab.objective import tempered, tilted
from tiltlab.samplers import populations, power_smc
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.types import Grade, Rollout

POPULATIONS = 1000


def many(language: TableLanguage, populations: int = POPULATIONS) -> TableLanguage:
    """A prompt for each population."""
    prompts = [f"population {i}" for i in range(populations)]
    return TableLanguage(language.logits.detach().expand(populations, -1, -1), prompts)


def ratios(sampler: PowerSMC, language: TableLanguage, seed: int, populations: int = POPULATIONS) -> torch.Tensor:
    """What each population estimates Z to be, over what it is."""
    objective = tempered(sampler.alpha) if sampler.beta is None else tilted(sampler.beta, sampler.alpha)
    reward = rewards_of(language, rewards(language))[0].double()
    logp = language.sequence_logprobs()[0].detach().double()
    exact = objective.log_target(reward, logp).logsumexp(0)
    named = many(language, populations)
    run = sampler(named, named.prompts, n=1, max_tokens=LIMIT, seed=seed, grade_fn=grade_fn_of(language))
    ratio: torch.Tensor = (torch.tensor(run.info.notes["log_z"], dtype=torch.float64) - exact).exp()
    return ratio


def z_of_mean(ratio: torch.Tensor) -> float:
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "beta", "name"),
    [
        (0.5, None, "random 0"),
        (4, None, "random 1"),
        (4, None, "short mode"),
        (1, 0.3, "short mode"),
        (2, 0.2, "random 1"),
    ],
)
def test_a_large_population_that_moves_hits_the_distribution(alpha: float, beta: float | None, name: str) -> None:
    """A reward that enters at the end leaves few effective particles, which moves do not change: the mean of four
    populations, of which one alone is off by up to .04 with moves and without."""
    language = LANGUAGES[name]
    exact = distribution_of(language, alpha, beta)
    sampler = PowerSMC(alpha, DRAWS, beta, moves=2)
    found = [empirical(samples_of(sampler, language, seed=seed), language) for seed in range(4 if beta else 1)]
    assert total_variation(torch.stack(found).mean(0), exact).item() <= 0.02
    if beta is None:
        assert distance(PowerSMC(alpha, DRAWS, threshold=1.0, ramp=3, moves=1), language, exact) <= 0.02


@pytest.mark.slow
@languages
@pytest.mark.parametrize(("alpha", "beta"), [(4, None), (2, 0.2)])
@pytest.mark.parametrize("options", [{}, {"threshold": 1.0, "ramp": 3}], ids=str)
def test_the_estimate_of_z_stays_unbiased(
    options: dict[str, float], alpha: float, beta: float | None, language: TableLanguage
) -> None:
    sampler = PowerSMC(alpha, 8, beta, moves=2, **options)  # type: ignore[arg-type]
    assert abs(z_of_mean(ratios(sampler, language, seed=2))) < 3


@dataclass(frozen=True)
class AsWeightsAsk(populations.Populations):
    """Resample-move as it is usually written: one population, moved whenever it is drawn anew."""

    def _step(self, state: populations._State) -> tuple[populations._State, populations._Seen]:
        state, drawn = self._grow(state)
        due = self._due(state)
        if state.tokens == self.limit or not len(due):
            return state, populations._Seen(drawn, due[:0])
        state = self._resample(state, due)
        particles, decided = self._moved(state.particles, torch.arange(self.K), state.tokens)
        return replace(state, particles=particles), populations._Seen(drawn, due, decided)


@pytest.mark.slow
def test_moves_when_the_weights_ask_for_them_would_bias_z(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why moves have fixed times."""
    sampler, language = PowerSMC(2, 8, 0.2, moves=2), LANGUAGES["random 1"]
    monkeypatch.setattr(power_smc, "Populations", AsWeightsAsk)
    monkeypatch.setattr(TableLanguage, "capacity", lambda *_: 1)  # a population at a time
    assert z_of_mean(ratios(sampler, language, seed=2, populations=2000)) < -4


def test_small_populations_that_move_come_nearer() -> None:
    language = LANGUAGES["random 1"]
    exact, named = distribution_of(language, 4), many(language)
    apart = []
    for moves in (0, 4):
        run = PowerSMC(4, 4, moves=moves)(named, named.prompts, n=4, max_tokens=LIMIT, seed=3)
        drawn = [rollout for group in run.rollouts for rollout in group]
        apart.append(total_variation(counts(language, drawn) / len(drawn), exact).item())
    assert apart[1] < 0.8 * apart[0]


def test_a_population_moves_the_same_whatever_is_beside_it() -> None:
    language = TableLanguage.random(4, symbols=2, max_symbols=3, prompts=("x", "y", "z"))
    sampler = PowerSMC(3, 5, moves=3)
    together = sampler(language, ["x", "y", "z", "x"], n=7, max_tokens=LIMIT, seed=1)
    for i, prompt in enumerate("xyz"):
        alone = sampler(language, [prompt], n=7, max_tokens=LIMIT, seed=1)
        assert alone.rollouts == [together.rollouts[i]]
        assert alone.info.notes["acceptance"] == [together.info.notes["acceptance"][i]]
    assert together.rollouts[0] != together.rollouts[3]
    assert together.info.drawn <= 4 * sampler.drawn(7) * LIMIT


def test_moves_begin_lines_of_their_own() -> None:
    """A reward takes all weight at the end, and leaves few ancestors."""
    language = TableLanguage.random(0, symbols=2, max_symbols=3, spread=0.3)

    def grade_fn(_: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
        return [Grade(float(len(rollout.tokens) > 2), None, "wrong") for rollout in rollouts]

    found = {
        moves: PowerSMC(1, 32, beta=0.01, moves=moves)(
            language, [""], n=32, max_tokens=LIMIT, seed=0, grade_fn=grade_fn
        ).info.notes
        for moves in (0, 8)
    }
    assert found[8]["ancestors"][0] > found[0]["ancestors"][0]
    assert found[8]["distinct"][0] >= found[0]["distinct"][0]
    assert 0 < found[8]["acceptance"][0] < 1


def test_negative_moves_are_refused_and_so_is_going_back_where_a_window_slides() -> None:
    with pytest.raises(ValueError, match="moves must not be negative"):
        PowerSMC(moves=-1)
    with pytest.raises(UserError, match="sliding window"):
        PowerSMC(2, 4, moves=1)(tiny.model(tiny.mistral()), ["ab"], n=4, max_tokens=8, seed=0)
