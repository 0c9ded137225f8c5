"""What a training step tells about itself: one line of metrics.jsonl.

Left out on purpose: thresholds. Which figures are alarming is for alarms.py to say.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tiltlab.models.base import TokenLogprobs
from tiltlab.objective import Terms
from tiltlab.system.world import World
from tiltlab.training.importance import Correction, effective_share
from tiltlab.types import UNKNOWN, Grade, Rollout

Metrics = dict[str, Any]
"""Numbers by name, and dicts of numbers by phase under "seconds" and "tokens"."""

LOOP = 16
"""Tokens: the longest block whose repetition is looked for, and what its repetitions fill at least."""

SAME = 1e-6
"""Scores of a group closer together than this, relative to their size, are one score: they carry no signal."""


@dataclass(frozen=True)
class Scored:
    """A (micro-)batch after scoring, without gradients. A NaN score does not count.

    rollouts_PG: `[P][G]`, as they were drawn.
    rewards_PG: float32 [P, G], NaN where nobody knows.
    terms: the parts of the scores, each a tensor [P, G] or 0.0.
    scores_PG: float32 [P, G], the whole-sequence reward R.
    advantages_PG: float32 [P, G], 0 where a score does not count.
    ref: log-probabilities under the reference.
    current: log-probabilities under the policy.
    log_ratio_PGT: float32 [P, G, T], log-probability under the policy less that when drawn, 0 beyond the end.
    """

    rollouts_PG: Sequence[Sequence[Rollout]]
    rewards_PG: Tensor
    terms: Terms
    scores_PG: Tensor
    advantages_PG: Tensor
    ref: TokenLogprobs
    current: TokenLogprobs
    log_ratio_PGT: Tensor


def all_parts(parts: list[Scored], world: World) -> list[Scored]:
    """The micro-batches of all ranks of a world, in host memory where there are several; all ranks call it."""
    if world.size == 1:
        return parts
    return [part for of in world.gather([_on_host(part) for part in parts]) for part in of]


def batch_metrics(parts: Sequence[Scored]) -> Metrics:
    """Figures of a batch: averages over the responses that count (those with a score), unless said otherwise.

    parts: its micro-batches, at least one. Returns, by name:

    reward: what training is rewarded by, over all responses that have one.
    term_*: the parts of R, whose sum is `score`.
    kl: mean log pi - log p, in nats a response.
    *_logp, *_logp_token: in nats a response, and a token.
    entropy: in nats a token. length: in tokens, over all responses. responses, groups: how many there are.
    truncated, ungraded: shares of all responses; ungraded ones have no reward.
    reward_spread, score_spread: standard deviation within a group, averaged; spread_*: likewise of the parts of R.
    repeated: share of all responses that end in a loop.
    no_signal: share of groups whose scores are all the same (or too few to compare).
    """
    columns = [_columns(part) for part in parts]
    flat = {name: torch.cat([column[name].flatten() for column in columns]) for name in columns[0]}
    counted = ~flat["score"].isnan()
    mean = {name: _mean(values[counted]) for name, values in flat.items()}
    groups = torch.cat([part.scores_PG for part in parts])
    rewards = torch.cat([part.rewards_PG for part in parts])
    drawn = [rollout for part in parts for group in part.rollouts_PG for rollout in group]
    tokens = flat["length"][counted].sum().item() or float("nan")
    return {
        "reward": _mean(flat["reward"][~flat["reward"].isnan()]),
        "score": mean["score"],
        "term_reward": mean["term_reward"],
        "term_sharpen": mean["term_sharpen"],
        "term_kl": mean["term_kl"],
        "kl": mean["policy_logp"] - mean["ref_logp"],
        "ref_logp": mean["ref_logp"],
        "policy_logp": mean["policy_logp"],
        "ref_logp_token": flat["ref_logp"][counted].sum().item() / tokens,
        "policy_logp_token": flat["policy_logp"][counted].sum().item() / tokens,
        "entropy": flat["entropy"].sum().item() / flat["length"].sum().item(),
        "length": _mean(flat["length"]),
        "responses": len(drawn),
        "groups": len(groups),
        "truncated": 1 - _mean(flat["complete"]),
        "ungraded": _mean(flat["reward"].isnan().float()),
        "reward_spread": _spread(rewards),
        "score_spread": _spread(groups),
        **{f"spread_{term}": _spread_of(columns, term) for term in ("reward", "sharpen", "kl")},
        "repeated": sum(map(ends_in_a_loop, drawn)) / len(drawn),
        "no_signal": _no_signal(groups),
    }


def sampler_metrics(parts: Sequence[Scored], correction: Correction) -> Metrics:
    """How far what drew the responses, q, is from the policy, pi.

    parts: micro-batches of a batch, at least one.
    correction: that the update is weighted by.

    Returns, by name:

    mismatch_mean, mismatch_max: |log pi - log q|, in nats a token, over all tokens.
    kl_sampler: KL(q || pi), in nats a response, over all of them: the mean of w - 1 - log w, which is never negative.
    weight_mean: mean of w = pi / q over all responses, without a cap; 1 in expectation.
    ess: effective share under w of the responses that count, without a cap.
    capped: share of the weights in the update that lay beyond the cap.
    """
    mismatch = torch.cat([part.log_ratio_PGT[part.current.mask_PGT].abs() for part in parts])
    logs = torch.cat([part.log_ratio_PGT.double().sum(-1).flatten() for part in parts])
    counted_PGs = [~part.scores_PG.isnan() for part in parts]
    capped = [
        correction.capped(part.log_ratio_PGT, part.current.mask_PGT & counted_PG[..., None])
        for part, counted_PG in zip(parts, counted_PGs, strict=True)
    ]
    return {
        "mismatch_mean": _mean(mismatch),
        "mismatch_max": mismatch.max().item(),
        "kl_sampler": _mean(logs.exp() - 1 - logs),
        "weight_mean": _mean(logs.exp()),
        "ess": effective_share(logs[torch.cat([counted_PG.flatten() for counted_PG in counted_PGs])]),
        "capped": _mean(torch.cat(capped)),
    }


def accuracy(grades_PG: Sequence[Sequence[Grade]]) -> float:
    """Share of right responses among those that the task could grade, whatever training is rewarded by; NaN where it
    could grade none."""
    known = [grade.reason == "correct" for group in grades_PG for grade in group if grade.reason not in UNKNOWN]
    return sum(known) / len(known) if known else float("nan")


def ends_in_a_loop(rollout: Rollout) -> bool:
    """Whether the last tokens (EOS aside) say the same over and over.

    That is a block of at most LOOP tokens, three times or more, over LOOP tokens or more.
    """
    tokens = rollout.tokens[:-1] if rollout.complete else rollout.tokens
    if len(tokens) < LOOP:
        return False
    for block in range(1, LOOP + 1):
        back = max(LOOP, 3 * block)
        if len(tokens) >= back and tokens[-back + block :] == tokens[-back:-block]:
            return True
    return False


class Phases:
    """Seconds of each phase of a step: `with phases("rollout"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add what the block takes to the phase of this name; on a GPU, until its kernels are done."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # otherwise the next phase would be billed for this one's kernels
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def metrics(self, rollouts_PG: Sequence[Sequence[Rollout]]) -> Metrics:
        """Seconds and response tokens by phase: each handles every token of the batch once."""
        tokens = sum(len(rollout.tokens) for group in rollouts_PG for rollout in group)
        return {"tokens": dict.fromkeys(self.seconds, tokens), "seconds": self.seconds}


def _on_host(part: Scored) -> Scored:
    terms = Terms(*(term.cpu() if isinstance(term, Tensor) else term for term in part.terms))
    ref, current = (
        TokenLogprobs(of.token_PGT.cpu(), of.mask_PGT.cpu(), of.entropy_PGT.cpu()) for of in (part.ref, part.current)
    )
    tensors = (part.rewards_PG, part.scores_PG, part.advantages_PG, part.log_ratio_PGT)
    rewards_PG, scores_PG, advantages_PG, log_ratio_PGT = (tensor.cpu() for tensor in tensors)
    return Scored(part.rollouts_PG, rewards_PG, terms, scores_PG, advantages_PG, ref, current, log_ratio_PGT)


def _columns(part: Scored) -> dict[str, Tensor]:
    like = torch.zeros_like(part.scores_PG)
    complete = torch.tensor([[r.complete for r in group] for group in part.rollouts_PG], device=like.device)
    return {
        "score": part.scores_PG,
        "reward": part.rewards_PG,
        "term_reward": like + part.terms.reward,
        "term_sharpen": like + part.terms.sharpen,
        "term_kl": like + part.terms.kl,
        "ref_logp": part.ref.total_PG,
        "policy_logp": part.current.total_PG,
        "entropy": part.current.entropy_PGT.sum(-1),
        "length": part.current.length_PG,
        "complete": complete.float(),
    }


def _mean(values: Tensor) -> float:
    return values.double().mean().item()


def _spread(values_PG: Tensor) -> float:
    """Standard deviation within each group over what is not NaN, averaged over groups that have two values or more."""
    known = ~values_PG.isnan()
    enough = known.sum(1) > 1
    centred = (values_PG - values_PG.nanmean(1, keepdim=True))[enough].double()
    variance = centred.square().nansum(1) / (known.sum(1)[enough] - 1)
    return _mean(variance.sqrt())


def _spread_of(columns: Sequence[dict[str, Tensor]], term: str) -> float:
    return _spread(torch.cat([torch.where(c["score"].isnan(), torch.nan, c[f"term_{term}"]) for c in columns]))


def _no_signal(scores_PG: Tensor) -> float:
    high = scores_PG.nan_to_num(nan=-torch.inf).amax(1)
    low = scores_PG.nan_to_num(nan=torch.inf).amin(1)
    few = (~scores_PG.isnan()).sum(1) < 2
    return _mean((few | (high - low <= SAME * high.abs().clamp(min=1))).float())
