import pytest
import torch

from tests.models.exact import expected_objective
from tests.tolerances import tv_tolerance
from tiltlab.models.table import (
    TableLanguage,
    count_prefixes,
    counts,
    optimum,
    sequence_lengths,
    total_variation,
)
from tiltlab.objective import sharpening, task_reward, tempered, tilted

LANGUAGES = [TableLanguage.random(seed) for seed in range(3)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_enumerated_distribution_sums_to_one(language: TableLanguage) -> None:
    assert len(language.sequences()) == 364
    assert language.sequence_logprobs().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert set(sequence_lengths(language).tolist()) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_generate_draws_from_the_enumerated_distribution(temperature: float) -> None:
    language, samples = LANGUAGES[0], 40_000
    distribution = TableLanguage(language.logits.detach() / temperature).sequence_logprobs()[0].detach().exp()
    drawn = language.generate([""], n=samples, temperature=temperature, max_tokens=6, seed=1)[0]
    assert all(rollout.complete for rollout in drawn)
    assert total_variation(counts(language, drawn) / samples, distribution) < tv_tolerance(distribution, samples)


def test_sampled_logprobs_are_the_scored_ones() -> None:
    language = LANGUAGES[1]
    drawn = language.generate(["", ""], n=50, temperature=0.7, max_tokens=4, seed=2)
    scored = language.logprobs(["", ""], drawn)
    sampled = torch.tensor([value for group in drawn for rollout in group for value in rollout.logprobs])
    torch.testing.assert_close(scored.token_PGT[scored.mask_PGT].detach(), sampled)
    assert scored.length_PG.tolist() == [[len(rollout.tokens) for rollout in group] for group in drawn]


def test_a_response_truncated_by_the_limit_is_not_complete() -> None:
    drawn = LANGUAGES[0].generate([""], n=500, max_tokens=3, seed=0)[0]
    for rollout in drawn:
        assert rollout.complete == (rollout.tokens[-1] == LANGUAGES[0].eos)
        assert rollout.complete or len(rollout.tokens) == 3
    assert {rollout.complete for rollout in drawn} == {True, False}


def test_ignoring_eos_draws_fixed_lengths_from_a_distribution_that_sums_to_one() -> None:
    language = TableLanguage.random(5, symbols=2, max_symbols=2)
    drawn = language.generate([""], n=20_000, max_tokens=4, seed=0, ignore_eos=True)[0]
    assert {len(rollout.tokens) for rollout in drawn} == {4}
    assert all(rollout.complete for rollout in drawn)
    seen = {rollout.tokens: rollout for rollout in drawn}
    distribution = language.logprobs([""], [list(seen.values())]).total_PG[0].detach().exp()
    assert distribution.sum().item() == pytest.approx(1, abs=1e-3)  # every string of four tokens that is likely came up
    frequency = torch.tensor([sum(r.tokens == tokens for r in drawn) / len(drawn) for tokens in seen])
    assert total_variation(frequency, distribution) < tv_tolerance(distribution, len(drawn))


def test_entropy_is_the_mean_surprise() -> None:
    language = LANGUAGES[2]
    scored = language.logprobs([""], language.enumerated())
    distribution = scored.total_PG[0].exp()
    assert (distribution @ scored.entropy_PGT[0].sum(-1)).item() == pytest.approx(
        -(distribution @ scored.total_PG[0]).item(), abs=1e-4
    )


def test_exact_optima_maximise_the_exact_objective() -> None:
    """No policy does better than the optimum: try the optimum itself against random ones and the reference."""
    language = TableLanguage.random(3, symbols=2, max_symbols=3)
    rewards_PS = torch.rand(1, count_prefixes(2, 3), generator=torch.Generator().manual_seed(0))
    logp_PS = language.sequence_logprobs().detach()
    for objective in (tempered(0.5), tempered(4), tilted(0.3, alpha=2), sharpening(), task_reward()):
        best_PS = optimum(objective, language, rewards_PS)
        score_PS = objective.score(rewards_PS, logp_PS, best_PS.clamp(min=1e-30).log())
        best = (best_PS * score_PS).sum()
        for seed in range(20):
            other = TableLanguage.random(seed, symbols=2, max_symbols=3, spread=2)
            assert expected_objective(objective, other, language, rewards_PS) < best
