"""A language cut at the limit: where training ends if truncated responses leave their group, and if they stay."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.tolerances import worst_z
from tests.training.test_train import coordinate_groups, recorded_gradients
from tiltlab.models.table import TableLanguage, total_variation
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.signals import signal_rewards
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Grade, Rollout

LIMIT = 3
"""Tokens: responses of the language used here have up to six."""

STAGES = [(0.1, 120), (0.03, 60), (0.01, 80)]
"""Learning rates and steps, in turn."""

Truncated = Literal["drop", "keep"]


def outcomes(language: TableLanguage, truncated: Truncated) -> list[Rollout]:
    """All that can be drawn within the limit and counts."""
    whole = {tokens for tokens in language.sequences() if len(tokens) <= LIMIT}
    cut = {tokens[:LIMIT] for tokens in language.sequences() if len(tokens) > LIMIT} if truncated == "keep" else set()
    return language.rollouts([(tokens, [0.0] * len(tokens)) for tokens in sorted(whole | cut)])


def logps(language: TableLanguage, of: list[Rollout]) -> Tensor:
    """log p of the outcomes, given that it is one of them: [S]; a truncated one's is summed over its tokens."""
    return language.logprobs(language.prompts[:1], [of]).total_PG[0].log_softmax(-1)


def rewards(language: TableLanguage) -> dict[str, float]:
    texts = sorted({rollout.text for rollout in [*outcomes(language, "keep"), *language.enumerated()[0]]})
    values = torch.rand(len(texts), generator=torch.Generator().manual_seed(5)).tolist()
    return dict(zip(texts, values, strict=True))


def wanted(objective: Objective, reference: TableLanguage, truncated: Truncated) -> Tensor:
    of = outcomes(reference, truncated)
    reward_S = torch.tensor([rewards(reference)[rollout.text] for rollout in of])
    target: Tensor = objective.log_target(reward_S, logps(reference, of).detach())
    return target.double().softmax(-1)


def trained(objective: Objective, reference: TableLanguage, truncated: Truncated) -> TableLanguage:
    policy, start = reference.clone(), 0
    for lr, steps in STAGES:
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=lr, warmup_steps=0, max_grad_norm=float("inf")))
        config = TrainConfig(start + steps, 1, 128, LIMIT, truncated=truncated)
        task = Lookup(reference.prompts, rewards(reference))
        for _ in train(policy, reference, task, objective, config, optimizer, start=start):
            pass
        start += steps
    return policy


@pytest.mark.slow
@pytest.mark.parametrize("truncated", ["drop", "keep"])
@pytest.mark.parametrize("objective", [tempered(0.5), tilted(0.3, alpha=1.25)], ids=["tempered", "tilted"])
def test_training_reaches_the_optimum_of_its_own_distribution(objective: Objective, truncated: Truncated) -> None:
    """At most .01 in total variation; the two optima are far from each other."""
    reference = TableLanguage.random(0)
    policy = trained(objective, reference, truncated)
    ends = logps(policy, outcomes(reference, truncated)).detach().exp()
    assert total_variation(ends, wanted(objective, reference, truncated)).item() <= 0.01


def test_the_two_optima_differ() -> None:
    """Of the complete responses alone, too: running on has its own share of what is kept."""
    reference = TableLanguage.random(0)
    whole, all_of_them = outcomes(reference, "drop"), outcomes(reference, "keep")
    cut = torch.tensor([not rollout.complete for rollout in all_of_them])
    share = wanted(tilted(0.3, alpha=1.25), reference, "keep")[cut].sum().item()
    assert 0.05 < share < 0.95
    assert {r.tokens for r in whole} == {r.tokens for r in all_of_them if r.complete}
    assert logps(reference, all_of_them).exp().sum().item() == pytest.approx(1)
    (raw,) = reference.logprobs(reference.prompts, [all_of_them]).total_PG
    assert raw.exp().sum().item() == pytest.approx(1)  # whatever is drawn is one of them


@pytest.mark.slow
def test_a_batchs_gradient_is_unbiased_where_truncated_responses_stay() -> None:
    reference, policy = TableLanguage.random(0), TableLanguage.random(11)
    objective, of = tilted(0.5, alpha=2), outcomes(reference, "keep")
    reward_S = torch.tensor([rewards(reference)[rollout.text] for rollout in of])
    logp_S, ref_S = logps(policy, of), logps(reference, of).detach()
    exact = (logp_S.exp() * objective.score(reward_S, ref_S, logp_S)).sum()
    (gradient,) = torch.autograd.grad(exact, policy.logits)
    options: dict[str, Any] = {"size": 4, "limit": LIMIT, "truncated": "keep"}
    batches = recorded_gradients(policy, reference, objective, rewards(reference), 2_000, **options)
    coordinates = coordinate_groups(policy, 4 * 2_000)
    assert worst_z(batches.flatten(1) @ coordinates, gradient[0].flatten() @ coordinates) < 4
    dropped = recorded_gradients(policy, reference, objective, rewards(reference), 2_000, 4, LIMIT)
    assert worst_z(dropped.flatten(1) @ coordinates, gradient[0].flatten() @ coordinates) > 6


@pytest.mark.parametrize("truncated", ["drop", "keep"])
def test_metrics_are_of_what_counts(truncated: Truncated) -> None:
    """KL is that of the distribution that is trained, and the share of truncated responses is told either way."""
    reference, policy = TableLanguage.random(0), TableLanguage.random(11)
    optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=0.0))
    config = TrainConfig(1, 1, 20_000, LIMIT, truncated=truncated)
    (step,) = train(policy, reference, Lookup(("",), rewards(reference)), tilted(1), config, optimizer)
    of = outcomes(reference, truncated)
    (logp_S,), (ref_S,) = (m.logprobs(m.prompts, [of]).total_PG.detach() for m in (policy, reference))
    weights = logp_S.exp() / logp_S.exp().sum()
    assert step["kl"] == pytest.approx((weights * (logp_S - ref_S)).sum().item(), abs=0.05)
    whole = sum(value.exp().item() for value, rollout in zip(logp_S, of, strict=True) if rollout.complete)
    assert step["truncated"] == pytest.approx(1 - whole, abs=0.02)


def test_a_truncated_response_votes_where_it_counts() -> None:
    rollouts = [[Rollout((0,), "a", True, ()), Rollout((1,), "b", False, ()), Rollout((1,), "b", False, ())]]
    grades = [[Grade(0.0, rollout.text, "wrong") for rollout in rollouts[0]]]
    assert signal_rewards("vote", rollouts, grades, 0) == [[1.0, 0.0, 0.0]]
    assert signal_rewards("vote", rollouts, grades, 0, "keep") == [[0.0, 1.0, 1.0]]
