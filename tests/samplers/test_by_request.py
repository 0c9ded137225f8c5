"""Samplers where another engine draws: the distribution is the model's, whatever the engine's weights are."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from tests.models import tiny
from tests.samplers.enumerated import (
    CHAINS,
    DRAWS,
    LANGUAGES,
    LIMIT,
    distribution_of,
    grade_fn_of,
)
from tests.tolerances import tv_tolerance
from tiltlab.models.engine import Replica, Split, Weights
from tiltlab.models.table import TableLanguage, counts, total_variation
from tiltlab.samplers.answer_power import AnswerPower
from tiltlab.samplers.base import Sampler, Samples
from tiltlab.samplers.beam import Beam
from tiltlab.samplers.best_of_n import BestOfN, Majority
from tiltlab.samplers.greedy import Greedy
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature


class Off(Replica):
    """An engine that takes other weights than it is given: old ones, rounded ones, a bug."""

    def update(self, weights: Weights, version: int) -> None:
        def spoilt() -> Iterable[tuple[str, Tensor]]:
            generator = torch.Generator().manual_seed(9)
            for name, tensor in weights():
                yield name, tensor + 0.7 * torch.randn(tensor.shape, generator=generator)

        super().update(spoilt, version)


def split(language: TableLanguage, engine: type[Replica] = Replica) -> Split:
    return Split(language, engine(language.clone()))


def samples_of(sampler: Sampler, model: Split, language: TableLanguage, n: int) -> Samples:
    return sampler(model, [""], n=n, max_tokens=LIMIT, seed=1, grade_fn=grade_fn_of(language))


def off(samples: Samples, language: TableLanguage, distribution: Tensor) -> float:
    (group,) = samples.rollouts
    return total_variation(counts(language, group) / len(group), distribution).item()


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(*_: object, **__: object) -> None:
        raise AssertionError("token by token")

    monkeypatch.setattr(Split, "decoder", decoder)


@pytest.mark.slow
@pytest.mark.usefixtures("no_steps")
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("random 0", PowerMCMC(4, 12)),
        ("random 1", PowerMCMC(2, 20)),
        ("short mode", PowerMCMC(2, 25, temperature=1.0)),
        ("random 1", PowerMCMC(1, 15, 0.3, temperature=1.0)),
    ],
)
def test_chains_of_requests_hit_the_distribution(name: str, sampler: PowerMCMC) -> None:
    language = LANGUAGES[name]
    exact = distribution_of(language, sampler.alpha, sampler.beta)
    samples = samples_of(sampler, split(language), language, CHAINS)
    assert off(samples, language, exact) <= 0.02
    assert off(samples, language, exact) < tv_tolerance(exact, CHAINS)
    assert samples.info.notes["mismatch"][0] < 1e-6


@pytest.mark.slow
@pytest.mark.usefixtures("no_steps")
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("random 0", PowerSMC(0.5, DRAWS)),
        ("short mode", PowerSMC(4, DRAWS, block=2)),
        ("random 1", PowerSMC(4, DRAWS, block=1, ramp=3, threshold=1.0, moves=1)),
        ("short mode", PowerSMC(2, DRAWS, block=2, temperature=1.0, moves=2)),
        ("random 1", PowerSMC(1, DRAWS, 0.3, block=3)),
    ],
)
def test_a_large_population_of_requests_hits_the_distribution(name: str, sampler: PowerSMC) -> None:
    language = LANGUAGES[name]
    exact = distribution_of(language, sampler.alpha, sampler.beta)
    assert off(samples_of(sampler, split(language), language, DRAWS), language, exact) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("random 1", PowerMCMC(2, 15, temperature=1.0)),
        ("random 1", PowerSMC(2, DRAWS, block=2, temperature=1.0, moves=1)),
        ("short mode", PowerSMC(2, DRAWS, block=2, temperature=1.0)),
    ],
)
def test_an_engine_with_other_weights_is_corrected_at_temperature_1(name: str, sampler: Sampler) -> None:
    language = LANGUAGES[name]
    exact = distribution_of(language, 2)
    samples = samples_of(sampler, split(language, Off), language, CHAINS)
    assert off(samples, language, exact) <= 0.02
    assert not any("engine" in warning for warning in samples.info.warnings)
    assert samples.info.notes["mismatch"][0] > 0.1


@pytest.mark.parametrize("sampler", [PowerMCMC(2, 4), PowerSMC(2, 50, block=2)], ids=str)
def test_an_engine_with_other_weights_is_said_at_another_temperature(sampler: Sampler) -> None:
    language = LANGUAGES["random 1"]
    samples = samples_of(sampler, split(language, Off), language, 100)
    (warning,) = [warning for warning in samples.info.warnings if "engine" in warning]
    assert "nats a token off the model's" in warning
    assert "temperature 1 it would be corrected" in warning


def test_log_p_is_the_models_own_whoever_drew() -> None:
    language = LANGUAGES["random 1"]
    for sampler in (PowerMCMC(2, 5), PowerSMC(2, 8, block=2, moves=1)):
        samples = samples_of(sampler, split(language, Off), language, 50)
        (group,) = samples.rollouts
        exact = language.logprobs([""], [group]).token_PGT[0]
        for rollout, logps in zip(group, exact.tolist(), strict=True):
            assert rollout.logprobs == pytest.approx(logps[: len(rollout.tokens)], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Replica, Off])
def test_the_estimate_of_z_is_unbiased_by_blocks(engine: type[Replica]) -> None:
    language = LANGUAGES["random 1"]
    named = TableLanguage(language.logits.detach().expand(2000, -1, -1), [f"population {i}" for i in range(2000)])
    exact = (2 * language.sequence_logprobs()[0].detach().double()).logsumexp(0)
    sampler = PowerSMC(2, 8, block=2, temperature=1.0, moves=1)
    run = sampler(split(named, engine), named.prompts, n=1, max_tokens=LIMIT, seed=2)
    ratio = (torch.tensor(run.info.notes["log_z"], dtype=torch.float64) - exact).exp()
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / len(ratio) ** 0.5


@pytest.mark.parametrize("sampler", [PowerMCMC(2, 4), PowerSMC(2, 5, block=2, moves=2)], ids=str)
def test_the_prompts_beside_one_change_nothing(sampler: Sampler) -> None:
    language = TableLanguage.random(4, symbols=2, max_symbols=3, prompts=("x", "y", "z"))
    model = split(language)
    together = sampler(model, ["x", "y", "z", "x"], n=7, max_tokens=LIMIT, seed=1)
    for i, prompt in enumerate("xyz"):
        assert sampler(model, [prompt], n=7, max_tokens=LIMIT, seed=1).rollouts == [together.rollouts[i]]
    assert together.rollouts[0] != together.rollouts[3]
    assert together.info.drawn <= 4 * sampler.drawn(7) * LIMIT


@pytest.mark.usefixtures("no_steps")
@pytest.mark.parametrize("sampler", [Temperature(0.5), BestOfN(3), Majority(3), AnswerPower(2)], ids=str)
def test_samplers_that_only_generate_go_through_the_engine(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*_: object, **__: object) -> None:
        raise AssertionError("by the trained model")

    language = LANGUAGES["random 0"]
    model = split(language)
    monkeypatch.setattr(TableLanguage, "generate", generate)
    assert len(samples_of(sampler, model, language, 5).rollouts[0]) == 5


@pytest.mark.parametrize("sampler", [Beam(3), Greedy(), Temperature(0.5, top_p=0.9), Temperature(top_k=2)], ids=str)
def test_samplers_that_choose_each_token_stay_on_the_model_and_say_so(sampler: Sampler) -> None:
    language = LANGUAGES["random 0"]
    alone = sampler(language, [""], n=5, max_tokens=LIMIT, seed=1)
    beside = samples_of(sampler, split(language), language, 5)
    assert beside.rollouts == alone.rollouts
    (line,) = beside.info.warnings
    assert "the model itself" in line
    assert "\n" not in line
    assert alone.info.warnings == ()


@pytest.mark.parametrize("sampler", [PowerMCMC(2, 6), PowerSMC(2, 4, block=3, moves=1)], ids=str)
def test_a_transformer_is_drawn_from_by_requests(sampler: Sampler) -> None:
    """Ragged prompts and prefixes: log p of what comes back is that of the plain forward."""
    model = tiny.model()
    prompts = ["ab", "c", "abcab"]
    samples = sampler(Split(model, Replica(tiny.model())), prompts, n=4, max_tokens=10, seed=3)
    assert samples.info.notes["mismatch"][0] < 1e-4
    with torch.no_grad():
        logps = model.logprobs(prompts, samples.rollouts).total_PG
    for row, group in zip(logps.tolist(), samples.rollouts, strict=True):
        assert [sum(rollout.logprobs) for rollout in group] == pytest.approx(row, abs=1e-3)


def test_a_block_can_be_asked_for_where_the_model_draws_itself() -> None:
    language = LANGUAGES["random 1"]
    alone = PowerSMC(2, 50, block=2)(language, [""], n=50, max_tokens=LIMIT, seed=1)
    assert alone.rollouts == samples_of(PowerSMC(2, 50, block=2), split(language), language, 50).rollouts
    with pytest.raises(ValueError, match="block must be at least 1"):
        PowerSMC(block=0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        PowerSMC(temperature=0)


@pytest.mark.parametrize("make", [tiny.model, lambda: LANGUAGES["random 1"]], ids=["transformer", "table"])
def test_log_p_at_another_temperature_is_that_of_colder_logits(make: object) -> None:
    model = make()  # type: ignore[operator]
    prompt = "ab" if hasattr(model, "codec") else ""
    groups = model.generate([prompt], n=6, max_tokens=5, seed=0)
    cold = model.logprobs([prompt], groups, temperature=0.5).token_PGT[0].detach()
    decoder = model.decoder([prompt], n=6, max_tokens=5)
    for t in range(5):
        logp_NV = (2 * decoder.next_logits().double()).log_softmax(-1)
        tokens = [rollout.tokens[t] if t < len(rollout.tokens) else 0 for rollout in groups[0]]
        for row, rollout in enumerate(groups[0]):
            if t < len(rollout.tokens):
                assert float(cold[row, t]) == pytest.approx(float(logp_NV[row, tokens[row]]), abs=1e-4)
        decoder.append(torch.tensor(tokens))
