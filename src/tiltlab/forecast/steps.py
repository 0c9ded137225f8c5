"""What a first step away from the base would do, towards likelihood, towards common answers, towards a reward. Pure.

A step t along a statistic s is the base times exp(t s) / Z: accuracy then changes by t Cov(correct, s), at the price of
a KL of t^2 Var(s) / 2. For the same KL the three can be compared.

Left out on purpose: what comes after it (lines.py).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from tiltlab.forecast.answers import Votes, answer_logs, vote_covariances
from tiltlab.forecast.reliability import mean_of_problems
from tiltlab.forecast.weighted_samples import Bools, Floats, WeightedSamples
from tiltlab.stats.metrics import Interval

PRICE = 0.01
"""KL of a first step, in nats."""


@dataclass(frozen=True)
class Step:
    """A first step towards one thing.

    slope: d accuracy / d t at the base; t is alpha - 1, g - 1, or 1 / beta.
    gain: of accuracy, for a KL of PRICE nats.
    """

    slope: Interval
    gain: Interval


@dataclass(frozen=True)
class Steps:
    """likelihood: towards p^alpha; the slope is Cov(correct, log p). answers: towards common answers, among responses
    that have one; Cov(correct, log P(answer)); None where there is nothing to vote on. reward: Var(correct)."""

    likelihood: Step
    answers: Step | None
    reward: Step


def steps(samples: WeightedSamples, votes: Votes | None) -> Steps:
    """From samples of the base itself; each problem needs two that are used."""
    used, n_P = samples.used, samples.used.sum(1)
    log_p = _centred(samples.logp, used)
    right = _centred(samples.correct, used)
    variance_P = (right**2).sum(1) / (n_P - 1)
    return Steps(
        likelihood=_step((right * log_p).sum(1) / (n_P - 1), (log_p**2).sum(1) / (n_P - 1)),
        answers=_of_answers(votes) if votes is not None else None,
        reward=_step(variance_P, variance_P),
    )


def _centred(values_PN: Floats, used: Bools) -> Floats:
    known = np.where(used, values_PN, 0.0)
    centred: Floats = np.where(used, known - known.sum(1, keepdims=True) / used.sum(1, keepdims=True), 0.0)
    return centred


def _of_answers(votes: Votes) -> Step | None:
    slope_P = vote_covariances(votes)
    share_PA = votes.count_PA / np.maximum(votes.count_PA.sum(1, keepdims=True), 1)
    logs_PA = answer_logs(votes.count_PA, votes.count_PA.sum(1))
    mean_P = (share_PA * logs_PA).sum(1)
    variance_P = (share_PA * (logs_PA - mean_P[:, None]) ** 2).sum(1)
    known = ~np.isnan(slope_P)
    return _step(slope_P[known], variance_P[known]) if known.any() else None


def _step(slope_P: Floats, variance_P: Floats) -> Step:
    slope, variance = float(slope_P.mean()), float(variance_P.mean())
    if variance <= 0:
        nothing = Interval(0.0, 0.0, 0.0)
        return Step(mean_of_problems(slope_P), nothing)
    unit = sqrt(2 * PRICE / variance)
    influence_P = unit * (slope_P - slope * (variance_P - variance) / (2 * variance))
    return Step(mean_of_problems(slope_P), mean_of_problems(influence_P))
