"""Rewards that take no label, and other ways to an advantage: what a batch points to, and where training ends."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.exact import expected_objective
from tests.tolerances import worst_z
from tests.training.test_train import Recorder, coordinate_groups
from tiltlab.models.table import TableLanguage, optimum, rewards_of, total_variation
from tiltlab.objective import Objective, entropy_minimization, sharpening, task_reward, tilted
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.advantage import Advantage, PassK, advantages
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.signals import Signal, signal_rewards
from tiltlab.training.train import TrainConfig, train, train_step
from tiltlab.types import Grade, Problem, Rollout

LIMIT = 4
"""Tokens that hold every response of these languages: two symbols, three of them at most, and EOS."""

NAN = float("nan")


def language(seed: int, prompts: Sequence[str] = ("",)) -> TableLanguage:
    return TableLanguage.random(seed, symbols=2, max_symbols=3, prompts=prompts)


@dataclass(frozen=True)
class Answering(Lookup):
    """The answer is the last symbol; a response that does not begin with `a` has none. Gold answers: `gold`."""

    gold: str = "a"

    def grade(self, problem: Problem, text: str) -> Grade:
        if not text.startswith("a"):
            return Grade(0.0, None, "no_answer")
        right = text[-1] == self.gold
        return Grade(float(right), text[-1], "correct" if right else "wrong")


def task_of(model: TableLanguage, gold: str = "a") -> Answering:
    return Answering(model.prompts, {}, gold=gold)


def format_rewards(model: TableLanguage) -> Tensor:
    return rewards_of(model, {r.text: float(r.text.startswith("a")) for r in model.enumerated()[0]})


def trained(
    reference: TableLanguage, objective: Objective, stages: Sequence[tuple[float, int]], **options: Any
) -> tuple[TableLanguage, list[dict[str, Any]]]:
    policy, start, lines = reference.clone(), 0, []
    task = options.pop("task", task_of(reference))
    for lr, steps in stages:
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=lr, warmup_steps=0, max_grad_norm=float("inf")))
        config = replace(TrainConfig(start + steps, len(reference.prompts), 128, LIMIT), **options)
        lines += list(train(policy, reference, task, objective, config, optimizer, start=start))
        start += steps
    return policy, lines


def law(policy: TableLanguage) -> Tensor:
    return policy.sequence_logprobs().detach().double().exp()


# What each response gets


def group(*answers: str | None, complete: Sequence[bool] = ()) -> tuple[list[Rollout], list[Grade]]:
    whole = complete or [True] * len(answers)
    rollouts = [Rollout((0,), "", done, (0.0,)) for done in whole]
    return rollouts, [Grade(NAN, answer, "wrong") for answer in answers]


@pytest.mark.parametrize(
    ("answers", "rewards"),
    [
        (["7", "8", "7", None], [1, 0, 1, 0]),
        (["7", "8", "7", "8", "9"], [0.5, 0.5, 0.5, 0.5, 0]),
        (["7", "8", "9"], [1 / 3, 1 / 3, 1 / 3]),
        ([None, None], [0, 0]),
        ([None, "7", None], [0, 1, 0]),
    ],
)
def test_a_vote_goes_to_the_answer_of_most_and_ties_share_it(answers: list[str | None], rewards: list[float]) -> None:
    rollouts, grades = group(*answers)
    assert signal_rewards("vote", [rollouts], [grades], 0) == [pytest.approx(rewards)]


def test_a_truncated_response_casts_no_vote() -> None:
    rollouts, grades = group("7", "7", "8", complete=[False, False, True])
    assert signal_rewards("vote", [rollouts], [grades], 0) == [[0, 0, 1]]


def test_groups_vote_by_themselves_and_may_differ_in_size() -> None:
    one, other = group("7", "7", "8"), group("8", None)
    assert signal_rewards("vote", [one[0], other[0]], [one[1], other[1]], 0) == [[1, 1, 0], [1, 0]]


def test_the_format_signal_asks_only_whether_there_is_an_answer() -> None:
    rollouts, grades = group("7", None, "nonsense")
    assert signal_rewards("format", [rollouts], [grades], 0) == [[1, 0, 1]]


def test_the_random_signal_is_a_fair_coin_that_the_seed_decides() -> None:
    rollouts, grades = group(*["7"] * 1000)
    heads, again, other = (torch.tensor(signal_rewards("random", [rollouts], [grades], s)[0]) for s in (1, 1, 2))
    assert set(heads.tolist()) == {0.0, 1.0}
    assert abs(heads.mean() - 0.5) < 4 * 0.5 / 1000**0.5
    assert torch.equal(heads, again)
    assert abs(((heads - 0.5) * (other - 0.5)).mean()) < 4 * 0.25 / 1000**0.5


# No label is looked at


@pytest.mark.parametrize("signal", ["vote", "random", "format"])
def test_gold_answers_change_nothing_but_the_accuracy_that_is_logged(signal: Signal) -> None:
    reference = language(0, ("x", "y", "z"))
    runs = [trained(reference, task_reward(), [(0.1, 5)], signal=signal, task=task_of(reference, g)) for g in "ab"]
    (one, lines), (other, lines_too) = runs
    assert one.fingerprint() == other.fingerprint() != reference.fingerprint()
    assert [line["reward"] for line in lines] == [line["reward"] for line in lines_too]
    answered = [line["accuracy"] + too["accuracy"] for line, too in zip(lines, lines_too, strict=True)]
    assert all(0 < share < 1 for share in answered)  # gold is one of two answers, and some responses have none
    by_task, *_ = (trained(reference, task_reward(), [(0.1, 5)], task=task_of(reference, g))[0] for g in "ab")
    assert by_task.fingerprint() != one.fingerprint()


def test_accuracy_stands_beside_the_signals_reward() -> None:
    """The answer `b`, which is wrong, wins the votes: the reward rises and the accuracy falls."""
    reference = language(0)
    reference.logits.data[0, 0] = torch.tensor([1.0, -1.0, -1.0])  # most responses have an answer,
    reference.logits.data[0, 1] = torch.tensor([-1.0, 1.0, -3.0])  # and most of those `b`
    _, lines = trained(reference, task_reward(), [(0.1, 40)], signal="vote")
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.3
    assert lines[-1]["accuracy"] < lines[0]["accuracy"] - 0.1


def test_a_reward_of_the_users_own_is_only_called_for_the_task_signal() -> None:
    reference = language(0)
    config = TrainConfig(1, 1, 8, LIMIT, signal="format")
    optimizer = Optimizer(reference.clone().trainable(), OptimizerConfig(lr=0.1))
    unusable: Any = object()
    list(train(reference.clone(), reference, task_of(reference), task_reward(), config, optimizer, reward=unusable))
    with pytest.raises(AttributeError):
        config = replace(config, signal="task")
        list(train(reference.clone(), reference, task_of(reference), task_reward(), config, optimizer, reward=unusable))


# Where training ends


@pytest.mark.parametrize("seed", range(3))
def test_format_without_kl_ends_on_any_answered_responses(seed: int) -> None:
    reference = language(seed)
    policy, _ = trained(reference, task_reward(), [(0.1, 150)], signal="format")
    assert (law(policy) * format_rewards(reference)).sum().item() >= 0.99


@pytest.mark.parametrize("seed", range(3))
def test_format_with_kl_ends_on_the_tilted_distribution(seed: int) -> None:
    """p exp(format / beta) / Z: total variation at most .01."""
    reference, objective = language(seed), tilted(0.5)
    exact = optimum(objective, reference, format_rewards(reference))
    policy, _ = trained(reference, objective, [(0.1, 150), (0.02, 150), (0.005, 150)], signal="format")
    assert total_variation(law(policy), exact).item() <= 0.01


def entropy(policy: TableLanguage) -> float:
    p = law(policy)[0]
    return float(-(p * p.clamp(min=1e-300).log()).sum())


def nearly_uniform() -> TableLanguage:
    """Eight responses of three symbols share nearly all mass; the likeliest has a sixth of it."""
    logits = 0.15 * language(2).logits.detach()
    logits[..., 2] = -9.0
    return TableLanguage(logits)


def test_entropy_minimization_ends_on_one_response_that_the_seed_chooses() -> None:
    """From one start; not always on the likeliest, as sharpening does."""
    reference = nearly_uniform()
    likeliest = int(law(reference)[0].argmax())
    ends: dict[str, list[int]] = {"entropy": [], "sharpening": []}
    for seed in range(4):
        for name, objective in (("entropy", entropy_minimization()), ("sharpening", sharpening())):
            policy, _ = trained(reference, objective, [(0.2, 120)], seed=seed, responses=8)
            ends[name].append(int(law(policy)[0].argmax()))
            if name == "entropy":
                assert entropy(policy) < 0.05 < 2 < entropy(reference)
    assert ends["sharpening"] == [likeliest] * 4
    assert likeliest in ends["entropy"]
    assert len(set(ends["entropy"])) > 1


def test_a_random_reward_drifts_to_where_its_seed_takes_it() -> None:
    """Nothing is learnt: every run leaves the reference, in a direction of its own, and loses entropy on the way."""
    reference, runs = language(0), []
    for seed in range(5):
        policy, lines = trained(reference, task_reward(), [(0.3, 100)], signal="random", seed=seed, responses=8)
        assert abs(sum(line["reward"] for line in lines) / 100 - 0.5) < 4 * 0.5 / 800**0.5
        runs.append(policy)
    laws = [law(policy)[0] for policy in runs]
    moved = [total_variation(one, law(reference)[0]).item() for one in laws]
    apart = [total_variation(one, other).item() for i, one in enumerate(laws) for other in laws[:i]]
    assert min(moved) > 0.2
    assert max(apart) > 0.5
    assert all(entropy(policy) < 0.75 * entropy(reference) for policy in runs)
    assert len({int(one.argmax()) for one in laws}) > 1


# One batch's gradient, in the mean


def gradients(
    policy: TableLanguage, reference: TableLanguage, objective: Objective, groups: int, size: int, **options: Any
) -> Tensor:
    """As `recorded_gradients` does, [groups, prefixes, V], with a signal and an advantage."""
    names = [f"group {i}" for i in range(groups)]
    wide, base = (TableLanguage(one.logits.detach().expand(groups, -1, -1), names) for one in (policy, reference))
    task, recorder = task_of(wide), Recorder(wide)
    config = replace(TrainConfig(1, groups, size, LIMIT, seed=3, micro_batch_tokens=10**9), **options)
    train_step(wide, base, task, objective, config, recorder, task.problems("train"), 0)  # type: ignore[arg-type]
    return recorder.gradient * groups


def z_score(batches: Tensor, expected: Tensor, policy: TableLanguage, draws: int) -> float:
    coordinates = coordinate_groups(policy, draws)
    return worst_z(batches.flatten(1) @ coordinates, expected.flatten() @ coordinates)


GROUPS = 4000


def test_a_random_reward_has_no_gradient_in_the_mean() -> None:
    policy = language(11)
    batches = gradients(policy, policy, task_reward(), GROUPS, 4, signal="random")
    assert batches.abs().max() > 0.1
    assert z_score(batches, torch.zeros_like(batches[0]), policy, 4 * GROUPS) < 4


def test_entropy_minimization_has_the_gradient_of_negative_entropy() -> None:
    reference, policy = language(0), language(11)
    logp = policy.sequence_logprobs()
    (gradient,) = torch.autograd.grad((logp.exp() * logp).sum(), policy.logits)
    assert torch.allclose(
        gradient,
        torch.autograd.grad(
            expected_objective(entropy_minimization(), policy, reference, torch.zeros(1, 15)), policy.logits
        )[0],
        atol=1e-5,
    )
    batches = gradients(policy, reference, entropy_minimization(), GROUPS, 4)
    assert z_score(batches, gradient, policy, 4 * GROUPS) < 4


def pass_rate(policy: TableLanguage) -> Tensor:
    right = [r.text.startswith("a") and r.text.endswith("a") for r in policy.enumerated()[0]]
    return (policy.sequence_logprobs()[0].exp() * torch.tensor(right)).sum()


@pytest.mark.parametrize(("k", "size"), [(1, 4), (2, 4), (3, 4), (4, 4), (2, 2)])
def test_passk_ascends_pass_at_k(k: int, size: int) -> None:
    """In the mean, z < 4: the gradient of 1 - (1 - p)^k, by enumeration."""
    policy = language(11)
    (gradient,) = torch.autograd.grad(1 - (1 - pass_rate(policy)) ** k, policy.logits)
    batches = gradients(policy, policy, task_reward(), GROUPS, size, advantage=PassK(k))
    assert z_score(batches, gradient, policy, size * GROUPS) < 4


def test_a_baseline_that_holds_the_response_itself_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain leave-one-out over the s is biased for k > 1: s_j depends on r_i."""
    policy = language(11)
    policy.logits.data[0, 0, 0] += 3.0  # with few right responses, the bias is small

    def plain(n: int, right: int, k: int) -> tuple[float, float]:
        own = k * comb(n - right, k - 1) / comb(n - 1, k - 1)
        return -own * right / (n - 1), own - own * (right - 1) / (n - 1)

    monkeypatch.setattr("tiltlab.training.advantage._by_reward", plain)
    (gradient,) = torch.autograd.grad(1 - (1 - pass_rate(policy)) ** 2, policy.logits)
    batches = gradients(policy, policy, task_reward(), GROUPS, 3, advantage=PassK(2))
    assert z_score(batches, gradient, policy, 3 * GROUPS) > 6


@pytest.mark.parametrize("size", [2, 4])
def test_maxrl_ascends_the_likelihood_cut_after_one_term_less_than_the_group_has_responses(size: int) -> None:
    policy = language(11)
    fails = 1 - pass_rate(policy)
    (gradient,) = torch.autograd.grad(-sum(fails**k / k for k in range(1, size)), policy.logits)
    batches = gradients(policy, policy, task_reward(), GROUPS, size, advantage="maxrl")
    assert z_score(batches, gradient, policy, size * GROUPS) < 4


def test_the_likelihoods_terms_keep_leave_one_out_beside_passk() -> None:
    """pass@2 - beta KL, in the mean."""
    reference, policy, beta = language(0), language(11), 0.3
    logp, ref = policy.sequence_logprobs(), reference.sequence_logprobs().detach()
    kl = (logp.exp() * (logp - ref)).sum()
    (gradient,) = torch.autograd.grad(1 - (1 - pass_rate(policy)) ** 2 - beta * kl, policy.logits)
    batches = gradients(policy, reference, tilted(beta), GROUPS, 4, advantage=PassK(2))
    assert z_score(batches, gradient, policy, 4 * GROUPS) < 4


# Advantages by hand


def of(how: Advantage, rewards: list[float]) -> list[float]:
    values = torch.tensor([rewards])
    return advantages(how, values, values, 1.0)[0].tolist()


def test_passk_1_is_leave_one_out() -> None:
    for rewards in ([1.0, 0.0, 0.0, 1.0], [1.0, NAN, 0.0], [0.0, 0.0], [1.0, 1.0, 1.0], [NAN, 1.0]):
        assert of(PassK(1), rewards) == pytest.approx(of("leave_one_out", rewards), abs=1e-6)


def test_passk_counts_a_right_response_by_how_seldom_it_is_alone() -> None:
    assert of(PassK(4), [1.0, 0.0, 0.0, 0.0]) == [4.0, 0.0, 0.0, 0.0]
    assert of(PassK(4), [1.0, 1.0, 0.0, 0.0]) == [0.0, 0.0, 0.0, 0.0]
    assert of(PassK(2), [1.0, 1.0, 0.0, 0.0])[0] == pytest.approx(2 * 2 / 3 - 2 / 3)  # others: s of 2, 0, 0 without it
    assert of(PassK(4), [1.0, 0.0, 0.0, NAN]) == [0.0, 0.0, 0.0, 0.0]  # three are too few to tell pass@4 from


def test_maxrl_divides_by_the_pass_rate() -> None:
    assert of("maxrl", [1.0, 0.0, 0.0, 0.0]) == pytest.approx([3.0, -1.0, -1.0, -1.0])
    assert of("maxrl", [0.0, 0.0]) == [0.0, 0.0]
    assert of("maxrl", [1.0, NAN, 0.0]) == pytest.approx([1.0, 0.0, -1.0])
    assert of("maxrl", [NAN, NAN]) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("how", "rewards", "says"),
    [
        (PassK(2), [1.0, 0.5], r"passk\(2\) needs rewards of 0 or 1, got 0.5"),
        (PassK(2), [float("inf"), 0.0], r"0 or 1, got inf"),
        ("maxrl", [1.0, -0.5], r"maxrl needs rewards of 0 or more, got -0.5"),
    ],
)
def test_rewards_that_an_advantage_cannot_be_told_from_are_refused(
    how: Advantage, rewards: list[float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        of(how, rewards)
