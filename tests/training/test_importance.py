"""Responses that another distribution drew: what the weights make of them, held against enumeration."""

from math import exp, inf, log, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import tiny
from tests.models.exact import expected_objective
from tests.tolerances import worst_z
from tests.training.test_train import LIMIT, Fixed, coordinate_groups, random_rewards, recorded_gradients
from tiltlab.models.base import Policy, TokenLogprobs
from tiltlab.models.engine import Split
from tiltlab.models.table import TableLanguage, rewards_of, sequence_lengths
from tiltlab.objective import Objective, task_reward, tempered, tilted
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.importance import NOTHING, Correction, effective_share, log_ratio
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Rollout

GROUPS, SIZE = 4_000, 4
REGIMES = {"task reward": task_reward(), "tempered 2": tempered(2), "tilted .1, alpha 2": tilted(0.1, alpha=2)}
EXACT = Correction("response", inf)


class Drawn:
    """A policy, and a distribution near it, normal noise on every logit, that draws its responses."""

    def __init__(self, objective: Objective, noise: float = 0.3) -> None:
        self.objective = objective
        self.reference, self.policy = TableLanguage.random(0), TableLanguage.random(11)
        self.rewards = random_rewards(self.reference, 0)
        away = noise * torch.randn(self.policy.logits.shape, generator=torch.Generator().manual_seed(5))
        self.sampler = TableLanguage(self.policy.logits.detach() + away)

    def ascent(self) -> Tensor:
        """The gradient of J at the policy."""
        rewards_PS = rewards_of(self.reference, self.rewards)
        (gradient,) = torch.autograd.grad(
            expected_objective(self.objective, self.policy, self.reference, rewards_PS), self.policy.logits
        )
        return gradient

    def expected(self, cap: float, limit: int = LIMIT) -> Tensor:
        """What a batch's gradient is in the mean: min(pi / q, cap), and the baseline of what q draws; truncated
        responses have no part in it, nor has one without a complete sibling."""
        logp_S, logq_S = self.policy.sequence_logprobs()[0], self.sampler.sequence_logprobs()[0].detach()
        ref_S = self.reference.sequence_logprobs()[0].detach()
        score_S = self.objective.score(rewards_of(self.reference, self.rewards)[0], ref_S, logp_S.detach())
        complete_S = (sequence_lengths(self.policy) <= limit).float()
        q_S = logq_S.exp() * complete_S
        weight_S = (logp_S.detach() - logq_S).exp().clamp(max=cap)
        baseline = (q_S @ score_S) / q_S.sum()
        (gradient,) = torch.autograd.grad((q_S * weight_S * (score_S - baseline)) @ logp_S, self.policy.logits)
        return gradient * (1 - (1 - q_S.sum().item()) ** (SIZE - 1))

    def bias(self, correction: Correction, expected: Tensor, limit: int = LIMIT) -> float:
        """Worst z over coordinates between the mean of 4000 batches' gradients and an expected one."""
        batches = recorded_gradients(
            self.policy, self.reference, self.objective, self.rewards, GROUPS, SIZE, limit,
            sampler=self.sampler, correction=correction,
        )  # fmt: skip
        coordinates = coordinate_groups(self.sampler, SIZE * GROUPS)
        return worst_z(batches.flatten(1) @ coordinates, expected.flatten() @ coordinates)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_weights_over_the_response_take_all_of_the_bias_away(regime: str) -> None:
    """And the test sees it where there are none, or where each token has its own: further off than 8 standard
    errors."""
    drawn = Drawn(REGIMES[regime])
    assert drawn.bias(EXACT, drawn.ascent()) < 4
    assert drawn.bias(NOTHING, drawn.ascent()) > 8
    assert drawn.bias(Correction("token", 2.0), drawn.ascent()) > 8


@pytest.mark.parametrize("regime", REGIMES)
def test_what_is_expected_of_weights_without_a_cap_is_the_gradient(regime: str) -> None:
    """By enumeration, without a draw: the baseline of what q draws costs nothing. A cap costs a part of it."""
    drawn = Drawn(REGIMES[regime])
    torch.testing.assert_close(drawn.expected(inf), drawn.ascent(), rtol=1e-4, atol=1e-6)
    assert 0.01 < (drawn.expected(1.2) - drawn.ascent()).norm() / drawn.ascent().norm() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("cap", "limit"), [(1.2, LIMIT), (inf, 4)], ids=["a cap", "truncated responses"])
def test_caps_and_truncated_responses_come_to_what_is_expected_of_them(cap: float, limit: int) -> None:
    drawn = Drawn(tempered(2))
    assert drawn.bias(Correction("response", cap), drawn.expected(cap, limit), limit) < 4


@pytest.mark.parametrize(
    "options", [{}, {"max_tokens": 3}, {"fixed_length": True}], ids=["whole", "truncated", "fixed"]
)
def test_weights_come_to_one_in_the_mean(options: dict[str, Any]) -> None:
    """Of all responses: also of those that the limit truncates, and of those that go on after EOS. Within five standard
    errors, told from the effective share: 1 / ess = 1 + the weights' variance."""
    drawn, size = Drawn(task_reward()), 4_000
    policy = Split(drawn.policy, Fixed(drawn.sampler))
    config = TrainConfig(**({"steps": 1, "prompts": 1, "responses": size, "max_tokens": LIMIT} | options))
    (line,) = train(policy, drawn.reference, Lookup(("",), drawn.rewards), task_reward(), config, still(policy))
    assert line["weight_mean"] == pytest.approx(1, abs=5 * sqrt((1 / line["ess"] - 1) / size))
    assert 0.3 < line["ess"] < 0.99
    assert line["kl_sampler"] > 0.01
    assert line["mismatch_mean"] > 0.1


# To the last bit


class Untouched:
    def __mul__(self, other: Tensor) -> Tensor:
        return other


@pytest.mark.parametrize(
    "make", [lambda: TableLanguage.random(0), lambda: trainable(tiny.model())], ids=["table", "hf"]
)
def test_without_a_correction_nothing_changes_to_the_last_bit(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop in which log pi is not so much as multiplied by 1."""

    def fingerprint() -> str:
        policy, reference = make(), make()
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=0.01, warmup_steps=0))
        prompt = policy.prompts[0] if isinstance(policy, TableLanguage) else "ab"
        task = Lookup((prompt,), random_rewards(TableLanguage.random(0), 0))
        config = TrainConfig(3, 1, 8, LIMIT, micro_batch_tokens=1)
        assert len(list(train(policy, reference, task, tempered(2), config, optimizer))) == 3
        assert policy.fingerprint() != reference.fingerprint()
        return str(policy.fingerprint())

    ours = fingerprint()
    monkeypatch.setattr(Correction, "weights", lambda self, ratio: Untouched())
    assert fingerprint() == ours


def trainable(model: Any) -> Any:
    model.module.requires_grad_(True)
    return model


def still(policy: Policy) -> Optimizer:
    return Optimizer(policy.trainable(), OptimizerConfig(lr=0.0))


# By hand


def logprobs(*rows: list[float]) -> TokenLogprobs:
    longest = max(map(len, rows))
    token = torch.tensor([[row + [0.0] * (longest - len(row)) for row in rows]])
    mask = torch.tensor([[[t < len(row) for t in range(longest)] for row in rows]])
    return TokenLogprobs(token, mask, torch.zeros_like(token))


def rollout(*logps: float) -> Rollout:
    return Rollout((0,) * len(logps), "", True, logps)


def test_weights_by_hand() -> None:
    current = logprobs([-1.0, -2.0], [-3.0], [])
    ratio = log_ratio(current, [[rollout(-1.5, -2.0), rollout(-2.0), rollout()]])
    assert ratio.tolist() == [[[0.5, 0.0], [-1.0, 0.0], [0.0, 0.0]]]
    response, token = Correction("response", 1.5), Correction("token", 1.5)
    assert response.weights(ratio).flatten().tolist() == pytest.approx([1.5, exp(-1), 1])
    assert token.weights(ratio)[0].tolist() == [pytest.approx([1.5, 1]), pytest.approx([exp(-1), 1]), [1, 1]]
    assert NOTHING.weights(ratio).unique().tolist() == [1]
    assert response.capped(ratio, current.mask_PGT).tolist() == [True, False]
    assert token.capped(ratio, current.mask_PGT).tolist() == [True, False, False]
    assert not NOTHING.capped(ratio, current.mask_PGT).any()


def test_weights_beyond_what_a_number_holds_are_capped() -> None:
    ratio = torch.tensor([[[800.0], [-inf]]])
    assert Correction("response", 2.0).weights(ratio).flatten().tolist() == [2, 0]


def test_the_effective_share_by_hand() -> None:
    assert all(1 - 1e-9 < effective_share(torch.full((n,), 1e-7, dtype=torch.float64)) <= 1 for n in range(1, 200))
    assert effective_share(torch.tensor([0.0, -inf, -inf, -inf], dtype=torch.float64)) == pytest.approx(0.25)
    assert effective_share(torch.tensor([1000.0, 1000.0 + log(3)], dtype=torch.float64)) == pytest.approx(16 / 10 / 2)
    assert effective_share(torch.zeros(0, dtype=torch.float64)) != effective_share(torch.zeros(0, dtype=torch.float64))


@pytest.mark.parametrize("cap", [0.5, float("nan"), -1.0])
def test_a_cap_below_one_is_refused(cap: float) -> None:
    with pytest.raises(ValueError, match="cap must be 1 or more"):
        Correction("response", cap)
