"""The one training loop: REINFORCE with a leave-one-out baseline on the whole-sequence reward, strictly on-policy.

    prompts -> rollouts -> grades -> scores (objective) -> advantages -> update

Left out on purpose: clipping, several updates a batch, replay, value functions, per-token rewards. Where another engine
draws, responses are weighted for it (importance.py); where the policy draws itself, every weight is 1.
Every regime goes through the same lines; only the three weights of the Objective differ.

Reference and policy are scored on the same micro-batches by the same code, so that where their weights agree
l - log pi is exactly 0, and where they nearly agree rounding (of bf16, say) cancels.

Responses truncated by the token limit leave their group (`truncated="drop"`). What is then maximised is J of the
distribution of *complete* responses, pi(y | complete): with the baseline taken over the complete ones only, the
expected gradient is that distribution's gradient times the chance that a response is complete. Or they stay (`"keep"`):
J is then that of whatever is drawn within the limit, a prefix being an outcome like any other, whose log p is the sum
over its tokens, the log of the chance of all responses that begin so. How often it happens is logged as `truncated`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from tiltlab.models.base import LanguageModel, Policy, TokenLogprobs
from tiltlab.models.shelf import at_hand
from tiltlab.objective import Objective
from tiltlab.rewards.functions import Reward
from tiltlab.seeds import batch_indices, derive
from tiltlab.system.world import ALONE, World
from tiltlab.tasks.base import Task, grade_all
from tiltlab.training.advantage import Advantage, advantages
from tiltlab.training.dealing import deal_groups, deal_prompts, shared
from tiltlab.training.importance import NOTHING, Correction, log_ratio
from tiltlab.training.optimizer import Optimizer
from tiltlab.training.room import Room
from tiltlab.training.signals import Signal, Truncated, signal_rewards
from tiltlab.training.step_metrics import Metrics, Phases, Scored, accuracy, all_parts, batch_metrics, sampler_metrics
from tiltlab.types import Problem, Prompt, Rollout

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the same for every regime of a study.

    prompts, responses: P and G of a batch. max_tokens: the limit on a response, in tokens.
    fixed_length: the regime's twin in which EOS is ignored while sampling: every response has max_tokens tokens.
    micro_batch_tokens: how many response tokens (padding included) one backward pass may hold; a prompt, read once for
        its group, adds to it once. A group is never split, since its baseline needs the log pi of all its responses;
        one that is larger goes alone.
    truncated: whether responses truncated by the limit leave their group, or count as they stand.
    signal: what training is rewarded by. But for "task", labels are only looked at to log the accuracy, and a reward of
        the user's own is not called.
    advantage: how scores become advantages; all but "leave_one_out" are ablations.
    correction: how responses are weighted where what drew them is not quite the policy.
    """

    steps: int
    prompts: int
    responses: int
    max_tokens: int
    seed: int = 0
    fixed_length: bool = False
    micro_batch_tokens: int = 4096
    truncated: Truncated = "drop"
    signal: Signal = "task"
    advantage: Advantage = "leave_one_out"
    correction: Correction = NOTHING


def train(
    policy: Policy,
    reference: LanguageModel,
    task: Task,
    objective: Objective,
    config: TrainConfig,
    optimizer: Optimizer,
    *,
    start: int = 0,
    reward: Reward | None = None,
    room: Room | None = None,
    world: World = ALONE,
) -> Iterator[Metrics]:
    """Train from step `start`, yielding the metrics of each step once its update is done.

    The caller evaluates, saves and stops between two steps. All randomness is a function of (config.seed, step), so
    going on from saved weights and optimiser state is the same as never having stopped.

    room: how much is held at once; as `config` says, where left out.
    world: the ranks that train together, each calling this with a policy sharded over them and an optimizer of its
        shards (models/sharded.py). Every rank draws, grades and learns from some of the groups; metrics are those of
        the whole batch, the same on every rank but for seconds.

    Raises FloatingPointError on a gradient that is not finite, UnsuitableReward where `advantage` cannot be told,
    UserError where a group does not fit the device's memory alone.
    """
    room = room or Room(config.micro_batch_tokens)
    problems = task.problems("train")
    for step in range(start, config.steps):
        indices = batch_indices(step, config.prompts, len(problems), config.seed)
        problems_P = [problems[i] for i in indices]
        yield train_step(policy, reference, task, objective, config, optimizer, problems_P, step, reward, room, world)


def train_step(
    policy: Policy,
    reference: LanguageModel,
    task: Task,
    objective: Objective,
    config: TrainConfig,
    optimizer: Optimizer,
    problems_P: Sequence[Problem],
    step: int,
    reward: Reward | None = None,
    room: Room | None = None,
    world: World = ALONE,
) -> Metrics:
    """One batch of P x G responses, one update. Arguments as in `train`.

    Among its metrics, `halved` is how often a bound was halved because memory ran out; what was tried before counts
    for nothing.
    """
    room = room or Room(config.micro_batch_tokens)
    phases, halved = Phases(), room.halved
    prompts_P = [task.render(problem) for problem in problems_P]
    own_reward = reward if config.signal == "task" else None
    shares = deal_prompts(policy, prompts_P, config.max_tokens, world)
    with phases("rollout"):
        rollouts_PG = shared(world, shares, lambda rows: drawn(policy, pick(prompts_P, rows), config, step))
    with phases("grade"):
        grades_PG = shared(
            world, shares, lambda rows: grade_all(task, pick(problems_P, rows), pick(rollouts_PG, rows), own_reward)
        )
        rewards_PG = signal_rewards(
            config.signal, rollouts_PG, grades_PG, derive(config.seed, "signal", step), config.truncated
        )
    rows = deal_groups(policy, prompts_P, rollouts_PG, world)[world.rank]
    batch = (pick(prompts_P, rows), pick(rollouts_PG, rows), pick(rewards_PG, rows))
    parts = room.fit(
        lambda batches: backward(policy, reference, objective, config, *batch, batches, phases),
        lambda tokens: micro_batches(batch[1], tokens),
        optimizer.drop,
    )
    require_on_policy(rollouts_PG, policy.version)
    with phases("update"):
        grad_norm = optimizer.step(step)
        policy.updated()
    update = {"step": step, "lr": optimizer.lr(step), "grad_norm": grad_norm}
    halvings, parts = sum(world.gather(room.halved - halved)), all_parts(parts, world)
    figures = batch_metrics(parts) | sampler_metrics(parts, config.correction) | {"accuracy": accuracy(grades_PG)}
    return update | {"halved": halvings} | figures | phases.metrics(rollouts_PG)


def drawn(policy: Policy, prompts_P: Sequence[Prompt], config: TrainConfig, step: int) -> list[list[Rollout]]:
    """The responses of a step to some of its prompts, `[P][G]`."""
    return policy.generate(
        prompts_P,
        n=config.responses,
        max_tokens=config.max_tokens,
        seed=derive(config.seed, "rollout", step),
        ignore_eos=config.fixed_length,
    )


def backward(
    policy: Policy,
    reference: LanguageModel,
    objective: Objective,
    config: TrainConfig,
    prompts_P: Sequence[Prompt],
    rollouts_PG: Sequence[Sequence[Rollout]],
    rewards_PG: Sequence[Sequence[float]],
    batches: Sequence[Sequence[int]],
    phases: Phases,
) -> list[Scored]:
    """Score a batch, micro-batch by micro-batch, and have the policy's parameters get its gradient."""
    with phases("reference"), torch.no_grad(), at_hand(reference):
        refs = [reference.logprobs(pick(prompts_P, rows), pick(rollouts_PG, rows)) for rows in batches]
    parts = []
    for rows, ref in zip(batches, refs, strict=True):
        prompts, rollouts, rewards = pick(prompts_P, rows), pick(rollouts_PG, rows), pick(rewards_PG, rows)
        with phases("update"):
            current = policy.logprobs(prompts, rollouts)
            scored = score(objective, rollouts, rewards, ref, current, config.advantage, config.truncated)
            weighed = replace(current, token_PGT=config.correction.weights(scored.log_ratio_PGT) * current.token_PGT)
            loss = -(scored.advantages_PG * weighed.total_PG).sum() / (config.prompts * config.responses)
            loss.backward()
        parts.append(scored)
    return parts


def score(
    objective: Objective,
    rollouts_PG: Sequence[Sequence[Rollout]],
    rewards_PG: Sequence[Sequence[float]],
    ref: TokenLogprobs,
    current: TokenLogprobs,
    advantage: Advantage = "leave_one_out",
    truncated: Truncated = "drop",
) -> Scored:
    """Rewards and log-probabilities -> the terms of R, R itself (NaN where a response does not count), advantages."""
    device = ref.token_PGT.device
    reward_PG = torch.tensor(rewards_PG, device=device)
    counted = [[rollout.complete or truncated == "keep" for rollout in group] for group in rollouts_PG]
    current = current.detach()
    terms = objective.terms(reward_PG, ref.total_PG, current.total_PG, ref.length_PG)
    scores_PG = torch.where(torch.tensor(counted, device=device), sum(terms), torch.nan)
    advantages_PG = advantages(advantage, scores_PG, reward_PG, objective.reward)
    ratio_PGT = log_ratio(current, rollouts_PG)
    return Scored(rollouts_PG, reward_PG, terms, scores_PG, advantages_PG, ref, current, ratio_PGT)


def micro_batches(rollouts_PG: Sequence[Sequence[Rollout]], tokens: int) -> list[list[int]]:
    """Indices of groups, in batches whose padded size stays within `tokens` (at least one group each).

    Groups of like length go together, so that little of a batch is padding.
    """
    longest = [max(len(rollout.tokens) for rollout in group) for group in rollouts_PG]
    batches: list[list[int]] = []
    for p in sorted(range(len(rollouts_PG)), key=longest.__getitem__, reverse=True):
        fits = batches and longest[batches[-1][0]] * len(rollouts_PG[p]) * (len(batches[-1]) + 1) <= tokens
        if fits:
            batches[-1].append(p)
        else:
            batches.append([p])
    return batches


def pick(items: Sequence[Item], rows: Sequence[int]) -> list[Item]:
    return [items[row] for row in rows]


def require_on_policy(rollouts_PG: Sequence[Sequence[Rollout]], version: int) -> None:
    """Raise RuntimeError if a rollout was drawn by another version of the policy than the one being updated."""
    stale = {rollout.version for group in rollouts_PG for rollout in group} - {version}
    if stale:
        raise RuntimeError(f"rollouts of policy version {sorted(stale)} met an update of version {version}")
