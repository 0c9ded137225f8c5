"""From scores to advantages, over the G responses to one prompt.

Left out on purpose: clipping, whitening over the batch, and learnt critics.
"""

import torch
from torch import Tensor


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
