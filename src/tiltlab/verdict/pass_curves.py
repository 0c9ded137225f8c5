"""What the pass@k of both models, for every k, says of sharpening: how much a second sample still adds, and where the
base overtakes. Pure.

Left out on purpose: k above the fewest samples that a problem has. What lies there nobody has drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.special import gammaln

from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.by_problem import by_task_and_problem, correct, graded
from tiltlab.stats.metrics import Interval
from tiltlab.types import Record
from tiltlab.verdict.held_out import Resamples, resamples


@dataclass(frozen=True)
class Crossing:
    """From which k on the base's pass@k is the larger, between whole k by interpolation in log k; a 95 % interval over
    problems. None: beyond the samples, if anywhere."""

    k: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PassCurves:
    """Over the problems that both models have graded responses to.

    most: K, the fewest samples of a problem, of either model.
    base_tax, tuned_tax: the sharpening tax: the mean of pass@K - pass@k over k < K, as a share of 1 - pass@1. 0 where
        more samples solve nothing more; a model that was sharpened has less of it than its base. NaN where pass@1 is 1.
    """

    most: int
    base_tax: Interval
    tuned_tax: Interval
    crossing: Crossing


def pass_curves(base: Sequence[Record], tuned: Sequence[Record], seed: int = 0) -> PassCurves | None:
    """None where fewer than two problems have samples of both, or one of them has a single one.

    seed: of the resampling of problems.
    """
    of_base, of_tuned = (
        {key: correct(group) for key, group in by_task_and_problem(graded(records)).items()}
        for records in (base, tuned)
    )
    both = [key for key in of_base if key in of_tuned]
    most = min((len(of[key]) for key in both for of in (of_base, of_tuned)), default=0)
    if len(both) < 2 or most < 2:
        return None
    drawn = resamples(len(both), seed)
    base_RK, tuned_RK = (
        drawn.both_RP @ np.stack([_curve(of[key], most) for key in both]) / len(both) for of in (of_base, of_tuned)
    )
    return PassCurves(most, _tax(base_RK, drawn), _tax(tuned_RK, drawn), _crossing(base_RK - tuned_RK))


def _curve(right: Sequence[bool], most: int) -> Floats:
    """pass@k of one problem for k = 1, ..., most."""
    n, wrong, k = len(right), len(right) - sum(right), np.arange(1, most + 1)
    able = k <= wrong
    left = np.where(able, wrong - k, 0)
    log_none = gammaln(wrong + 1) - gammaln(left + 1) + gammaln(n - k + 1) - gammaln(n + 1)
    return np.where(able, -np.expm1(log_none), 1.0)


def _tax(curve_RK: Floats, drawn: Resamples) -> Interval:
    open_R = 1 - curve_RK[:, 0]
    tax_R = (curve_RK[:, -1:] - curve_RK[:, :-1]).mean(1) / np.where(open_R > 0, open_R, np.nan)
    return drawn.interval(tax_R)


def _crossing(lead_RK: Floats) -> Crossing:
    k_R = np.array([_first(lead_K) for lead_K in lead_RK])
    low, high = np.quantile(k_R[1:], [0.025, 0.975], method="nearest")
    return Crossing(*(float(k) if isfinite(k) else None for k in (k_R[0], low, high)))


def _first(lead_K: Floats) -> float:
    """The k at which the lead becomes positive; infinity where it does not."""
    ahead = np.flatnonzero(lead_K > 1e-9)
    if not len(ahead):
        return np.inf
    right = int(ahead[0])
    if right == 0:
        return 1.0
    before, after = lead_K[right - 1], lead_K[right]
    share = float(before / (before - after))
    return float(right ** (1 - share) * (right + 1) ** share)
