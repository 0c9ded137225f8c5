"""The loop against languages that can be enumerated: where it ends, and which way a single batch points."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.exact import expected_objective
from tests.tolerances import tv_tolerance, worst_z
from tiltlab.models.base import TokenLogprobs
from tiltlab.models.engine import Replica, Split, Weights
from tiltlab.models.table import (
    TableLanguage,
    counts,
    optimum,
    rewards_of,
    sequence_lengths,
    total_variation,
)
from tiltlab.objective import Objective, sharpening, task_reward, tempered, tilted
from tiltlab.seeds import batch_indices
from tiltlab.tasks.lookup import Lookup
from tiltlab.training import advantage as advantage_module
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, micro_batches, require_on_policy, train, train_step
from tiltlab.types import Grade, Problem, Rollout

LIMIT = 6
"""Tokens that hold every response of the languages used here (five symbols and EOS)."""


def random_rewards(language: TableLanguage, seed: int) -> dict[str, float]:
    values = torch.rand(len(language.sequences()), generator=torch.Generator().manual_seed(100 + seed)).tolist()
    return {rollout.text: value for rollout, value in zip(language.enumerated()[0], values, strict=True)}


class RewardsByPrompt(Lookup):
    """Each prompt has rewards of its own: `rewards` are by prompt and text together."""

    def grade(self, problem: Problem, text: str) -> Grade:
        return super().grade(problem, problem.id + text)


def side_by_side(languages: Sequence[TableLanguage]) -> TableLanguage:
    """As one with a prompt for each, "0" and so on: no weight of it is shared, so each is trained as if alone."""
    logits = torch.cat([language.logits.detach() for language in languages])
    return TableLanguage(logits, [str(i) for i in range(len(languages))])


def trained(
    reference: TableLanguage,
    rewards: dict[str, float],
    objective: Objective,
    stages: list[tuple[float, int]],
    batch: int = 256,
    task: type[Lookup] = Lookup,
) -> TableLanguage:
    """Train for some (learning rate, steps) in turn: large steps to get there, small ones to stay."""
    policy, start = reference.clone(), 0
    for lr, steps in stages:
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=lr, warmup_steps=0, max_grad_norm=float("inf")))
        config = TrainConfig(start + steps, len(reference.prompts), batch, LIMIT)
        for _ in train(policy, reference, task(reference.prompts, rewards), objective, config, optimizer, start=start):
            pass
        start += steps
    return policy


REGIMES = {
    "tempered .5": tempered(0.5),
    "tempered 2": tempered(2),
    "tempered 4": tempered(4),
    "tilted 1": tilted(1),
    "tilted .1": tilted(0.1),
    "tilted 1, alpha 2": tilted(1, alpha=2),
    "tilted .1, alpha 2": tilted(0.1, alpha=2),
}


LONG = [(0.1, 600), (0.03, 150), (0.01, 250)]
MIDDLING = [(0.1, 300), (0.03, 150), (0.01, 150)]
SHORT = [(0.1, 150), (0.03, 80), (0.01, 100)]
STAGES = {"tilted .1": LONG, "tilted .1, alpha 2": MIDDLING, "tempered .5": MIDDLING}
SEEDS = range(3)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_training_reaches_the_exact_optimum(regime: str) -> None:
    """At most .01 in total variation, over 364 sequences of variable length, with random rewards; three languages.

    Two thirds of that are reached by 330 steps of 128 responses, but where rewards of ten nats leave hardly anything of
    what the reference was, and where much is likely.
    """
    stages, batch = STAGES.get(regime, SHORT), 192 if regime == "tilted .1" else 128
    languages = [TableLanguage.random(seed) for seed in SEEDS]
    rewards = [random_rewards(language, seed) for seed, language in enumerate(languages)]
    by_prompt = {f"{seed}{text}": value for seed in SEEDS for text, value in rewards[seed].items()}
    policy = trained(side_by_side(languages), by_prompt, REGIMES[regime], stages, batch, RewardsByPrompt)
    for seed, language in enumerate(languages):
        exact = optimum(REGIMES[regime], language, rewards_of(language, rewards[seed]))[0]
        assert total_variation(policy.sequence_logprobs()[seed].exp(), exact).item() <= 0.01, seed


@pytest.mark.slow
@pytest.mark.parametrize("objective", [sharpening(), task_reward()], ids=["sharpening", "task reward"])
def test_without_kl_all_mass_goes_to_the_argmax(objective: Objective) -> None:
    by_prompt, argmax = {}, []
    languages = [TableLanguage.random(seed) for seed in SEEDS]
    for seed, language in enumerate(languages):
        likely = language.sequence_logprobs()[0].argsort(descending=True)[:40].tolist()
        best = set(likely[5:40:7])  # the best rewards are on responses that are rare, but not too rare to be seen
        rewards = {r.text: 0.5 + 0.5 * (i in best) for i, r in enumerate(language.enumerated()[0])}
        argmax.append(optimum(objective, language, rewards_of(language, rewards))[0] > 0)
        by_prompt |= {f"{seed}{text}": value for text, value in rewards.items()}
    policy = trained(side_by_side(languages), by_prompt, objective, [(0.1, 200)], task=RewardsByPrompt)
    for seed in SEEDS:
        assert policy.sequence_logprobs()[seed].exp()[argmax[seed]].sum().item() >= 0.99, seed


def test_the_null_control_has_no_gradient_and_stays() -> None:
    reference = TableLanguage.random(0)
    recorded = recorded_gradients(reference, reference, tempered(1), random_rewards(reference, 0), groups=50)
    assert recorded.abs().max().item() == 0.0
    policy = trained(reference, random_rewards(reference, 0), tempered(1), [(0.1, 100)])
    assert policy.fingerprint() == reference.fingerprint()


# One batch's gradient, in the mean


class Recorder:
    """Stands in for the optimiser and keeps the gradient that it would have used."""

    def __init__(self, policy: TableLanguage) -> None:
        self.policy = policy

    def drop(self) -> None: ...

    def lr(self, step: int) -> float:
        return 0.0

    def step(self, step: int) -> float:
        assert self.policy.logits.grad is not None
        self.gradient = -self.policy.logits.grad.clone()  # train minimises -J
        return 0.0


def recorded_gradients(
    policy: TableLanguage,
    reference: TableLanguage,
    objective: Objective,
    rewards: dict[str, float],
    groups: int,
    size: int = 4,
    limit: int = LIMIT,
    sampler: TableLanguage | None = None,
    **options: Any,
) -> Tensor:
    """`groups` independent single-batch gradients, [groups, prefixes, V], from one call of train_step.

    A table has logits of its own for each prompt, so with as many prompts as groups each group writes its own part.
    Responses are drawn from `sampler`, where there is one. `options` are of TrainConfig.
    """
    names = [f"group {i}" for i in range(groups)]

    def wide(language: TableLanguage) -> TableLanguage:
        return TableLanguage(language.logits.detach().expand(groups, -1, -1), names)

    learner = wide(policy)
    drawn = Split(learner, Fixed(wide(sampler))) if sampler else learner
    task, recorder = Lookup(names, rewards), Recorder(learner)
    config = TrainConfig(1, groups, size, limit, seed=3, micro_batch_tokens=10**9, **options)
    problems = task.problems("train")
    train_step(drawn, wide(reference), task, objective, config, recorder, problems, 0)  # type: ignore[arg-type]
    return recorder.gradient * groups


class Fixed(Replica):
    """An engine that takes no weights, and says that it did."""

    def update(self, weights: Weights, version: int) -> None:
        self.version = version


ENOUGH = 200
"""Draws of a token that make the mean of its gradient near enough to normal for a standard error to mean anything."""


def coordinate_groups(policy: TableLanguage, draws: int) -> Tensor:
    """0 / 1 [prefixes * V, K]: one group for every logit whose token is drawn `ENOUGH` times or more in `draws`
    responses, in expectation under the policy; the logits of the rarer ones are summed by the prefix's length and the
    token. Chosen from the distribution, not from the sample."""
    distribution = policy.logits.detach()[0].softmax(-1)
    reached, length = torch.zeros(len(distribution)), torch.zeros(len(distribution), dtype=torch.long)
    reached[0] = 1.0
    for child in range(1, len(distribution)):
        parent, symbol = divmod(child - 1, policy.symbols)
        reached[child], length[child] = reached[parent] * distribution[parent, symbol], length[parent] + 1
    often = (draws * reached[:, None] * distribution >= ENOUGH).flatten()
    label = length[:, None] * distribution.shape[1] + torch.arange(distribution.shape[1])
    pooled = torch.nn.functional.one_hot(label.flatten()).float() * ~often[:, None]
    return torch.cat([torch.eye(len(often))[:, often], pooled[:, pooled.sum(0) > 0]], 1)


BIASED = {
    "task reward": task_reward(),
    "sharpening": sharpening(),
    "tempered .5": tempered(0.5),
    "tempered 4": tempered(4),
    "tilted .1, alpha 2": tilted(0.1, alpha=2),
}


def estimator_z(objective: Objective, groups: int = 4_000) -> float:
    reference, policy = TableLanguage.random(0), TableLanguage.random(11)
    rewards = random_rewards(reference, 0)
    exact = expected_objective(objective, policy, reference, rewards_of(reference, rewards))
    (gradient,) = torch.autograd.grad(exact, policy.logits)
    batches = recorded_gradients(policy, reference, objective, rewards, groups)
    coordinates = coordinate_groups(policy, 4 * groups)
    return worst_z(batches.flatten(1) @ coordinates, gradient.flatten() @ coordinates)


@pytest.mark.slow
@pytest.mark.parametrize("regime", BIASED)
def test_a_batchs_gradient_is_unbiased(regime: str) -> None:
    """The mean of 4000 single-batch gradients meets the enumerated objective's within 4 standard errors."""
    assert estimator_z(BIASED[regime]) < 4


def without_detach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenLogprobs, "detach", lambda self: self)


def without_eos(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_last(self: TokenLogprobs) -> Tensor:
        last = self.mask_PGT & (self.mask_PGT.cumsum(-1) == self.mask_PGT.sum(-1, keepdim=True))
        return self.token_PGT.masked_fill(last, 0.0).sum(-1)

    monkeypatch.setattr(TokenLogprobs, "total_PG", property(without_last))


def baseline_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advantage_module, "leave_one_out", lambda scores: scores - scores.mean(1, keepdim=True))


def clamped_kl(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Objective.terms

    def clamped(self: Objective, *inputs: Tensor) -> Any:
        parts = terms(self, *inputs)
        return parts._replace(kl=parts.kl.clamp(min=-1.0, max=1.0))

    monkeypatch.setattr(Objective, "terms", clamped)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "regime"),
    [
        (without_detach, "tempered 4"),
        (without_eos, "tempered 4"),
        (without_eos, "task reward"),
        (baseline_over_all, "task reward"),
        (baseline_over_all, "tempered 4"),
        (clamped_kl, "tempered .5"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_test_of_bias_sees_what_is_wrong(
    fault: Callable[[pytest.MonkeyPatch], None], regime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert estimator_z(BIASED[regime]) > 6


@pytest.mark.slow
def test_a_sibling_dropped_from_the_baseline_costs_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not bias (any baseline that leaves the response itself out does not), but three siblings quiet the
    gradient more than two: (1 + 1/2) / (1 + 1/3) = 1.125 times the variance where scores do not depend on tokens."""
    reference, policy = TableLanguage.random(0), TableLanguage.random(11)

    def variance() -> float:
        rewards = random_rewards(reference, 0)
        return recorded_gradients(policy, reference, tempered(4), rewards, 8_000).var(0).sum().item()

    def one_dropped(scores: Tensor) -> Tensor:
        return scores - (scores.sum(1, keepdim=True) - scores - scores.roll(1, 1)) / 2

    right = variance()
    monkeypatch.setattr(advantage_module, "leave_one_out", one_dropped)
    assert variance() > 1.05 * right


@pytest.mark.slow
def test_truncated_responses_leave_the_distribution_of_the_complete_ones() -> None:
    """With a limit that cuts some responses off, the mean gradient is that of J of pi(y | complete), times the chance
    that a response is complete and has a complete sibling."""
    limit, size = 4, 4
    reference, policy = TableLanguage.random(0), TableLanguage.random(11)
    rewards, objective = random_rewards(reference, 0), tilted(0.5, alpha=2)
    logp_S, ref_S = policy.sequence_logprobs()[0], reference.sequence_logprobs()[0].detach()
    complete = sequence_lengths(policy) <= limit
    score = objective.score(rewards_of(reference, rewards)[0], ref_S, logp_S.detach())[complete]
    distribution = logp_S[complete].log_softmax(-1)
    (gradient,) = torch.autograd.grad((distribution.exp() * score).sum(), policy.logits)
    chance = logp_S[complete].exp().sum().item()
    expected = gradient[0] * chance * (1 - (1 - chance) ** (size - 1))
    batches = recorded_gradients(policy, reference, objective, rewards, 4_000, size, limit)
    coordinates = coordinate_groups(policy, 4_000 * size)
    assert worst_z(batches.flatten(1) @ coordinates, expected.flatten() @ coordinates) < 4


# Mechanics


def table_run(steps: int, start: int = 0, policy: TableLanguage | None = None, **options: Any) -> tuple[Any, Any]:
    reference = TableLanguage.random(0, prompts=[f"p{i}" for i in range(5)])
    policy = policy or reference.clone()
    optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=0.05, warmup_steps=3))
    task = Lookup(reference.prompts, random_rewards(reference, 0))
    config = replace(TrainConfig(steps, 3, 4, LIMIT), **options)
    return list(train(policy, reference, task, tilted(0.1), config, optimizer, start=start)), policy


def test_micro_batches_do_not_change_the_update() -> None:
    (whole, one), (parts, other) = table_run(3), table_run(3, micro_batch_tokens=1)
    torch.testing.assert_close(one.logits, other.logits)
    assert [m["grad_norm"] for m in whole] == pytest.approx([m["grad_norm"] for m in parts], rel=1e-5)
    assert [m["kl"] for m in whole] == pytest.approx([m["kl"] for m in parts], abs=1e-6)


def test_groups_are_never_split_and_like_lengths_go_together() -> None:
    def group(*lengths: int) -> list[Rollout]:
        return [Rollout((0,) * length, "", True, ()) for length in lengths]

    groups = [group(2, 3), group(50, 1), group(3, 3), group(49, 2)]
    assert micro_batches(groups, 200) == [[1, 3], [2, 0]] or micro_batches(groups, 200) == [[1, 3], [0, 2]]
    assert sorted(p for batch in micro_batches(groups, 1) for p in batch) == [0, 1, 2, 3]
    assert all(len(batch) == 1 for batch in micro_batches(groups, 1))


def test_every_epoch_holds_every_problem_once() -> None:
    """Five problems in batches of three: batches run on across the ends of epochs."""
    stream = [i for step in range(10) for i in batch_indices(step, 3, 5, seed=1)]
    epochs = [stream[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert stream != [i for step in range(10) for i in batch_indices(step, 3, 5, seed=2)]


def test_stale_rollouts_are_refused() -> None:
    with pytest.raises(RuntimeError, match="version"):
        require_on_policy([[Rollout((0,), "", True, (), version=3)]], version=4)


def test_a_gradient_that_is_not_finite_stops_training_with_the_weights_untouched() -> None:
    reference = TableLanguage.random(0)
    policy = reference.clone()
    rewards = {text: float("inf") if i == 0 else 0.0 for i, text in enumerate(random_rewards(reference, 0))}
    optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=0.1, warmup_steps=0))
    config = TrainConfig(5, 1, 64, LIMIT)
    with pytest.raises(FloatingPointError, match="gradient"):
        list(train(policy, reference, Lookup(("",), rewards), task_reward(), config, optimizer))
    assert policy.fingerprint() == reference.fingerprint()


def test_metrics_say_what_happened() -> None:
    reference = TableLanguage.random(0)
    rewards = random_rewards(reference, 0)
    (first,), _ = run_one(reference, rewards, tilted(0.1, alpha=2))
    assert first["score"] == pytest.approx(first["term_reward"] + first["term_sharpen"] + first["term_kl"], rel=1e-5)
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert first["reward"] == pytest.approx(first["term_reward"])
    assert first["ref_logp"] == pytest.approx(first["policy_logp"])
    distribution = reference.sequence_logprobs()[0].exp()
    length = (distribution @ sequence_lengths(reference)).item()
    assert first["length"] == pytest.approx(length, abs=6 * 2 / 2000**0.5)  # lengths vary by less than 2
    assert first["ref_logp_token"] == pytest.approx(first["ref_logp"] / first["length"], rel=1e-4)
    assert first["mismatch_max"] < 1e-5
    assert (first["truncated"], first["ungraded"], first["no_signal"]) == (0, 0, 0)
    assert set(first["seconds"]) == {"rollout", "grade", "reference", "update"}


def run_one(reference: TableLanguage, rewards: dict[str, float], objective: Objective) -> tuple[Any, Any]:
    policy = reference.clone()
    optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=0.0))
    config = TrainConfig(1, 1, 2000, LIMIT)
    return list(train(policy, reference, Lookup(("",), rewards), objective, config, optimizer)), policy


def test_going_on_is_the_same_as_not_having_stopped(tmp_path: Any) -> None:
    """Across the end of an epoch, with the optimiser's state saved and read back."""
    reference = TableLanguage.random(0, prompts=[f"p{i}" for i in range(5)])
    task = Lookup(reference.prompts, random_rewards(reference, 0))

    def learn(policy: TableLanguage, optimizer: Optimizer, start: int, end: int) -> None:
        config = TrainConfig(end, 3, 4, LIMIT)
        for _ in train(policy, reference, task, tilted(0.1), config, optimizer, start=start):
            pass

    def fresh() -> tuple[TableLanguage, Optimizer]:
        policy = reference.clone()
        return policy, Optimizer(policy.trainable(), OptimizerConfig(lr=0.05, warmup_steps=3))

    straight, optimizer = fresh()
    learn(straight, optimizer, 0, 7)
    stopped, optimizer = fresh()
    learn(stopped, optimizer, 0, 4)
    stopped.save(tmp_path)
    optimizer.save(tmp_path / "optimizer.safetensors")
    resumed, optimizer = fresh()
    resumed.restore(tmp_path, 4)
    optimizer.restore(tmp_path / "optimizer.safetensors")
    learn(resumed, optimizer, 4, 7)
    assert resumed.fingerprint() == straight.fingerprint()


def test_sampling_the_trained_policy_gives_its_distribution() -> None:
    """What training moved is what sampling sees."""
    reference = TableLanguage.random(0)
    policy = trained(reference, random_rewards(reference, 0), tempered(4), [(0.1, 60)])
    distribution = policy.sequence_logprobs()[0].detach().exp()
    drawn = policy.generate([""], n=20_000, max_tokens=LIMIT, seed=9)[0]
    assert total_variation(counts(policy, drawn) / len(drawn), distribution) < tv_tolerance(distribution, len(drawn))
