"""When a forecast is a number, and how sure that number is. Pure.

Three checks, each a factor that must not be above 1: enough effective samples; half of the samples tell the same story;
and nothing better than what was seen can be in hiding. Thresholds were set, and are held, by simulation
(benchmarks/forecast_coverage.py).

Left out on purpose: checks by problem. To drop the problems whose weights degenerate would answer for easier ones.
"""

from math import exp, hypot, sqrt

import numpy as np
from scipy.special import gammaincinv, stdtrit

from tiltlab.forecast.importance import Estimate, Figures
from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.metrics import Interval, wilson

ESS_FLOOR = 10.0
"""Effective samples a problem (harmonic mean, at the lower end of its one-sided 99.5 % interval) below which what the
jackknife leaves of the bias shows."""

STABLE = 1.0
"""Standard errors by which halving the samples, or what may hide, may move a forecast."""

NEGLIGIBLE = 0.01
"""Of a figure: a smaller move is none, however small the standard errors (the KL of a large beta is nearly the same on
every problem). It still widens the interval."""

MIN_PROBLEMS = 10
"""Fewer give no interval over problems worth the name."""

FEW_PROBLEMS = f"fewer than {MIN_PROBLEMS} problems"


def intervals(figures: Figures) -> list[Interval]:
    """95 % intervals of the figures' means over problems, in the order of their columns.

    Over problems, so that the noise of their samples is in it; with the move that halving the samples makes added to
    the variance, since as much bias may be left.
    """
    made = []
    for figure, values in enumerate(figures.corrected.T):
        mean, noise = _moved(figures, figure)
        interval = (mean_of_problems if figure in (1, 2) else share_of_problems)(values, mean**2 + noise**2)
        if figure == 2:  # no KL is below 0
            interval = Interval(max(0.0, interval.value), max(0.0, interval.low), max(0.0, interval.high))
        made.append(interval)
    return made


def share_of_problems(values: Floats, extra: float = 0.0) -> Interval:
    """95 % interval for the mean of a share, of which `values` [P] are estimates that may leave [0, 1]; `extra` is
    variance of the mean besides that over problems.

    Wilson's at the size p (1 - p) / var(mean), like metrics.share_interval. But a small spread that only a handful of
    problems tells of is hardly known: the size is at most the number of problems times the smaller of P p, P (1 - p).
    """
    problems = len(values)
    p = float(np.clip(values.mean(), 0.0, 1.0))
    if problems < 2:
        return Interval(p, float("nan"), float("nan"))
    rare, variance = problems * min(p, 1 - p), float(values.var(ddof=1)) + problems * extra
    gain = max(p * (1 - p), 0.5 / problems) / variance if variance > 0 else 1.0
    size = problems * min(gain, max(1.0, rare))
    return wilson(p, size, problems)


def mean_of_problems(values: Floats, extra: float = 0.0) -> Interval:
    """95 % interval (Student's) for the mean of `values` [P], one a problem; `extra` as for a share."""
    mean, problems = float(values.mean()), len(values)
    if problems < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stdtrit(problems - 1, 0.975)) * sqrt(float(values.var(ddof=1)) / problems + extra)
    return Interval(mean, mean - half, mean + half)


def skewed_mean_of_problems(values: Floats, extra: float = 0.0) -> Interval:
    """Likewise, for values that lie to one side: by Hall's transformation of Student's t (1992), which takes their
    skewness out of it."""
    plain = mean_of_problems(values, extra)
    if len(values) < 3 or not values.std() > 1e-9 * (1 + abs(plain.value)):
        return plain
    problems, variance = len(values), float(values.var()) + len(values) * extra
    skew = float(((values - plain.value) ** 3).mean()) / variance**1.5 / sqrt(problems)
    if abs(skew) < 1e-6:
        return plain
    error, t = sqrt(variance / (problems - 1)), float(stdtrit(problems - 1, 0.975))
    low, high = (3 / skew * (float(np.cbrt(1 + skew * (x - skew / 6))) - 1) for x in (-t, t))
    return Interval(plain.value, plain.value - error * high, plain.value - error * low)


def doubts_of(estimate: Estimate, accuracy: Interval, missing: Floats) -> dict[str, float]:
    """Reasons to give no number, and the factor by which each fails; a forecast passes with none above 1.

    accuracy: its interval. missing: log of the factor by which the best response there can be outweighs the best that
    was seen, (best reward - best seen) / beta, [P].
    """
    problems = len(estimate.plain)
    if problems < MIN_PROBLEMS:
        return {FEW_PROBLEMS: MIN_PROBLEMS / problems}
    all_alike = (estimate.top * estimate.ess < 1 + 1e-9).all()  # then nothing is weighed, and n may be small
    return {
        "the effective sample size is too small": 0.0 if all_alike else ESS_FLOOR / _surely(estimate),
        "half of the samples tell another story": max(drift(estimate, figure) for figure in range(3)),
        "better responses than any seen could change it": _hidden(estimate, missing) / (accuracy.high - accuracy.low),
    }


def _surely(estimate: Estimate) -> float:
    """The harmonic mean of the effective sample size, at the lower end: a few problems whose weights degenerate govern
    it, and a few dozen problems may have drawn none of them."""
    error = float(estimate.load.std(ddof=1)) / sqrt(len(estimate.load))
    return 1 / (1 / estimate.ess_harmonic + 2.576 * error)


def drift(figures: Figures, figure: int) -> float:
    """How far halving the samples moves a figure over how far it may: STABLE standard errors, of it and of the move, or
    a NEGLIGIBLE part of it."""
    mean, noise = _moved(figures, figure)
    values = figures.corrected[:, figure]
    error = hypot(float(values.std()) / sqrt(len(values)), noise)
    allowed = max(STABLE * error, NEGLIGIBLE * abs(float(values.mean())), 1e-9)
    return abs(mean) / allowed if abs(mean) > 1e-9 else 0.0


def _hidden(estimate: Estimate, missing: Floats) -> float:
    """By how much responses better than any seen could move the accuracy, over STABLE, in quarters (an interval has
    four standard errors).

    Where a mass a of them hides in a problem, n samples show it with probability n a, and it then has most of that
    problem's weight. How many problems one sample dominates bounds the sum of n a over problems (Poisson, 95 %), and a
    moves the accuracy of its problem by at most a exp(missing), or by 1.
    """
    lacking = int((missing > 0).sum())
    if not lacking:
        return 0.0
    bound = float(gammaincinv(int((estimate.top > 0.5).sum()) + 1, 0.95))
    gain = exp(min(50.0, float(missing.max()))) / float(np.median(estimate.samples_per_problem))
    return 4 * min(lacking, bound * gain) / len(missing) / STABLE


def _moved(figures: Figures, figure: int) -> tuple[float, float]:
    """By how much halving the samples moves a figure's mean over problems, and the standard error of that."""
    moved = figures.halves[:, figure] - figures.corrected[:, figure]
    return float(moved.mean()), float(moved.std()) / sqrt(len(moved))
