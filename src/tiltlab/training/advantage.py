"""From scores to advantages, over the G responses to one prompt.

Left out on purpose: clipping, whitening over the batch, and learnt critics.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import ClassVar, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class PassK:
    """The gradient of pass@k: `{passk: 4}` in a recipe.

    passk: k, from 1 (the same as leave_one_out) to the number of responses to a prompt.
    """

    passk: int
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Raises ValueError for a k below 1."""
        if self.passk < 1:
            raise ValueError(f"passk must be at least 1, got {self.passk}")


class UnsuitableReward(ValueError):
    """A reward that an advantage cannot be told from."""


Advantage = Literal["leave_one_out", "group_normalized", "maxrl"] | PassK
"""How scores become advantages. All but leave_one_out are ablations: they ascend something else than J."""


def advantages(how: Advantage, scores_PG: Tensor, rewards_PG: Tensor, weight: float) -> Tensor:
    """Advantages of the scores R = weight r + the rest, [P, G], 0 where a response does not count.

    maxrl and passk are estimators for the reward r alone; the rest (the likelihood's terms) keeps leave_one_out.

    scores_PG: NaN where a response does not count. rewards_PG: r, before it is weighed.

    Raises UnsuitableReward where maxrl or passk cannot be told from the rewards.
    """
    if how == "leave_one_out":
        return leave_one_out(scores_PG)
    if how == "group_normalized":
        return group_normalized(scores_PG)
    counted_PG = torch.where(scores_PG.isnan(), torch.nan, rewards_PG)
    of_reward_PG = maxrl(counted_PG) if how == "maxrl" else passk(counted_PG, how.passk)
    return weight * of_reward_PG + leave_one_out(scores_PG - weight * rewards_PG)


def leave_one_out(scores_PG: Tensor) -> Tensor:
    """A_i = R_i - mean of the *other* valid scores of its group (RLOO, arXiv 2402.14740). Unbiased.

    scores_PG: [P, G], NaN where a response is not to count (truncated, or not gradable). Returns [P, G] in the same
    dtype; responses that do not count, and groups with fewer than two that do, get 0 and so carry no gradient. An
    infinite score makes its group's advantages NaN: nothing that has overflowed passes for a number.
    """
    valid_PG = ~scores_PG.isnan()
    known_PG = torch.where(valid_PG, scores_PG, 0.0).double()  # sums of log p reach -1e4: keep their differences
    others_P1 = valid_PG.sum(1, keepdim=True) - 1
    baseline_PG = (known_PG.sum(1, keepdim=True) - known_PG) / others_P1.clamp(min=1)
    return torch.where(valid_PG & (others_P1 > 0), known_PG - baseline_PG, 0.0).to(scores_PG.dtype)


def group_normalized(scores_PG: Tensor) -> Tensor:
    """Leave-one-out advantages over the group's standard deviation (as in GRPO). An ablation: it moves the optimum.

    Useful to tell an unstable regime from one whose scores are merely large. Groups without spread get 0.
    """
    advantages_PG = leave_one_out(scores_PG)
    count_P1 = (~scores_PG.isnan()).sum(1, keepdim=True)
    mean_P1 = scores_PG.nanmean(1, keepdim=True)
    variance_P1 = (scores_PG - mean_P1).square().nansum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)
    return torch.where(variance_P1 > 0, advantages_PG / variance_P1.sqrt().clamp(min=1e-8), 0.0)


def maxrl(rewards_PG: Tensor) -> Tensor:
    """A_i = (r_i - mean r) / mean r, 0 where the mean is (MaxRL, arXiv 2602.02710, 2026).

    For rewards of 0 or 1 and a pass rate p, the expected gradient is that of log p cut after G - 1 terms,
    - sum over k < G of (1 - p)^k / k: the higher G, the more a problem counts that is seldom solved. (Without the mean
    subtracted there would be G terms.)

    rewards_PG: [P, G], NaN where a response is not to count. Raises UnsuitableReward for a negative one.
    """
    if (rewards_PG < 0).any():
        raise UnsuitableReward(
            f"advantage maxrl needs rewards of 0 or more, got {rewards_PG.nan_to_num().min().item():g}"
        )
    mean_P1 = rewards_PG.nanmean(1, keepdim=True)
    return torch.where(~rewards_PG.isnan() & (mean_P1 > 0), (rewards_PG - mean_P1) / mean_P1, 0.0)


def passk(rewards_PG: Tensor, k: int) -> Tensor:
    """A_i = s_i - baseline, s_i = k r_i C(n - c, k - 1) / C(n - 1, k - 1): k times the chance that a right response is
    the only one among itself and k - 1 others, for n responses of which c are right. The mean of A_i grad log pi(y_i)
    is an unbiased estimate of the gradient of pass@k (PKPO, arXiv 2505.15201, 2025; its "loo-1" weights, for r of 0
    and 1).

    baseline: the mean of what the others' s would be without response i, as s_j depends on r_i. There is none where
        k = n: k - 1 others are then not left for them.

    rewards_PG: [P, G], NaN where a response is not to count. Groups with fewer than k that do, or than two, get 0.
    Raises UnsuitableReward for one that is neither 0 nor 1.
    """
    known_PG = ~rewards_PG.isnan()
    odd = rewards_PG[known_PG & (rewards_PG != 0) & (rewards_PG != 1)]
    if len(odd):
        raise UnsuitableReward(f"advantage passk({k}) needs rewards of 0 or 1, got {odd[0].item():g}")
    right_PG = rewards_PG == 1
    sizes = zip(known_PG.sum(1).tolist(), right_PG.sum(1).tolist(), strict=True)
    by_reward_P2 = rewards_PG.new_tensor([_by_reward(n, c, k) for n, c in sizes])
    advantages_PG = torch.where(right_PG, by_reward_P2[:, 1:], by_reward_P2[:, :1])
    return torch.where(known_PG, advantages_PG, 0.0)


@lru_cache(maxsize=4096)
def _by_reward(n: int, right: int, k: int) -> tuple[float, float]:
    """Advantages of a wrong and of a right response, of n of which so many are right."""
    if n < max(2, k):
        return 0.0, 0.0
    own = k * _alone(n, right, k)
    return -_mean_score(n - 1, right, k), own - _mean_score(n - 1, right - 1, k)


def _mean_score(n: int, right: int, k: int) -> float:
    """Of n responses; 0 where there are too few, or where no such group exists."""
    return k * right / n * _alone(n, right, k) if 0 < right <= n >= k else 0.0


def _alone(n: int, right: int, k: int) -> float:
    """Chance that the k - 1 drawn beside a right response, from the n - 1 others, are all wrong."""
    return comb(n - right, k - 1) / comb(n - 1, k - 1)
