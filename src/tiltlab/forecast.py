"""How far sharpening, and how far a reward, can carry a model: told from its own samples, before any training. Pure.

From n samples a problem of the base p, with log p and grades: accuracy, length and KL of the optima p^alpha
exp(r / beta) / Z, averaged over problems, with an interval over the population that the problems come from; and *no
number* where the samples do not carry it. How a figure is made is in snis.py, when it is withheld in `_doubts`, and
what that is worth in docs/forecast.md.

Left out on purpose: modes that no sample has hit. A response of probability 1e-4 that p^alpha would choose cannot be
seen in a hundred samples, nor can any weight tell; only another proposal (a lower temperature, a beam) can look for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, sqrt

import numpy as np
from scipy import stats
from scipy.special import softmax

from tiltlab.draws import Draws, Floats, some_problems
from tiltlab.errors import UserError
from tiltlab.metrics import Interval, mean_interval
from tiltlab.snis import Estimate, enough, estimate

ALPHAS = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
BETAS = (2.0, 1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)

ESS_FLOOR = 10.0
"""Harmonic mean over problems of the effective sample size below which what the jackknife leaves of the bias shows."""

STABLE = 0.75
"""Standard errors by which the forecast from half of the samples, and what may hide, may move the whole one."""

MIN_PROBLEMS = 10
"""Fewer give no interval over problems worth the name."""


@dataclass(frozen=True)
class Point:
    """The forecast for p^alpha exp(r / beta) / Z; beta None: without the reward.

    accuracy, length (tokens) and kl (nats, to the base) are averages over problems, None where they are not carried;
    pass_at holds pass@k by k, each None where it alone is not carried. ess: effective samples a problem, the median
    over problems; ess_harmonic: their harmonic mean, which the worst problems govern. why: why there is no number.
    samples_needed: how many samples a problem would carry it, at least: the present number times the worst of the
    failed checks, all of which fall as 1 / n or faster once the mass has been seen.
    """

    alpha: float
    beta: float | None
    accuracy: Interval | None
    length: Interval | None
    kl: Interval | None
    pass_at: dict[int, Interval | None]
    ess: float
    ess_harmonic: float
    carried: bool
    why: str | None
    samples_needed: int | None


@dataclass(frozen=True)
class Forecast:
    """Points by alpha; at each alpha first without the reward, then by beta from large to small.

    slope: Cov under p of (correct, log p), in nats: d accuracy / d alpha at alpha = 1. problems: how many the averages
    are over; left_out more had too few samples to use. samples: the median number used of each. cut_off, ungraded:
    samples not used, being prefixes, or having no grade.
    """

    points: tuple[Point, ...]
    slope: Interval
    problems: int
    left_out: int
    samples: float
    cut_off: int
    ungraded: int


def forecast(
    draws: Draws,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    ks: Sequence[int] = (),
    best_reward: float = 1.0,
) -> Forecast:
    """The forecast at every alpha, without the reward and with it at each beta, and pass@k at each k.

    best_reward: the largest reward that a response can get; a larger one that was seen takes its place. Where a point
    is silent, so is what lies beyond it: on the sharpening path whatever is further from alpha = 1 on the same side,
    and at each alpha whatever has a smaller beta.

    Raises UserError for an alpha or beta that is not above 0, and where no problem has enough samples.
    """
    for name, values in (("alpha", alphas), ("beta", betas)):
        if not all(0 < value < inf for value in values):
            raise UserError(f"forecast: every {name} must be a number above 0, got {list(values)}")
    keep = enough(draws)
    if not keep.any():
        raise UserError("forecast: no problem has the four complete, graded samples (of each proposal) that it takes")
    known = some_problems(draws, keep)
    forecaster = _Forecaster(known, tuple(ks), best_reward)
    lines: dict[float, list[Point]] = {}
    for side in (sorted(a for a in set(alphas) if a >= 1), sorted((a for a in set(alphas) if a < 1), reverse=True)):
        silent = False
        for alpha in side:
            lines[alpha] = forecaster.line(alpha, sorted(set(betas), reverse=True), silent)
            silent = not lines[alpha][0].carried
    return Forecast(
        points=tuple(point for alpha in sorted(lines) for point in lines[alpha]),
        slope=covariance(known),
        problems=len(known.problems),
        left_out=int((~keep).sum()),
        samples=float(np.median(known.used.sum(1))),
        cut_off=draws.cut_off,
        ungraded=draws.ungraded,
    )


def covariances(draws: Draws) -> Floats:
    """Cov under p of (correct, log p) for each problem, in nats, [P]: unbiased where the samples are from p itself."""
    log_weight = np.where(draws.used, draws.logp - draws.log_q, -np.inf)
    share = softmax(log_weight, axis=1)
    centred = draws.logp - (share * draws.logp).sum(1, keepdims=True)
    found: Floats = (share * centred * draws.correct).sum(1) / (1 - (share**2).sum(1))
    return found


def covariance(draws: Draws) -> Interval:
    """The mean of `covariances` over problems: the slope of accuracy in alpha at alpha = 1, before anything is drawn
    from p^alpha. Above 0, a little sharpening helps."""
    return mean_interval(covariances(draws))


def tilted_by_binary_reward(accuracy: float, beta: float) -> tuple[float, float]:
    """Accuracy and KL of p exp(r / beta) / Z where r is 1 for correct responses and 0 for others: closed form.

    a e^(1/beta) / (a e^(1/beta) + 1 - a), and a' / beta - log(a e^(1/beta) + 1 - a). Self-normalised weights of samples
    from p come to the same, with a the share of correct ones. 0 and 1 stay where they are.
    """
    log_z = (
        float(np.logaddexp(np.log(accuracy) + 1 / beta, np.log1p(-accuracy))) if 0 < accuracy < 1 else accuracy / beta
    )
    tilted = accuracy * exp(1 / beta - log_z)
    return tilted, tilted / beta - log_z


class _Forecaster:
    def __init__(self, draws: Draws, ks: tuple[int, ...], best_reward: float) -> None:
        self.draws, self.ks = draws, ks
        self.problems, self.n = len(draws.problems), float(np.median(draws.used.sum(1)))
        top = np.where(draws.used, draws.reward, -inf).max(1)
        self.missing = max(best_reward, float(top.max())) - top  # reward that no sample of the problem has got

    def line(self, alpha: float, betas: Sequence[float], silent: bool) -> list[Point]:
        """The points at one alpha. `silent`: a point nearer to alpha = 1 was, and so are these."""
        points: list[Point] = []
        for beta in (None, *betas):
            points.append(self._point(alpha, beta, silent))
            silent = silent or not points[-1].carried
        return points

    def _point(self, alpha: float, beta: float | None, silent: bool) -> Point:
        tilt = 0.0 if beta is None else 1 / beta
        found = estimate(self.draws, alpha, tilt, self.ks)
        shares = [share_of_problems(column) for column in np.delete(found.corrected, [1, 2], axis=1).T]
        intervals = [shares[0], mean_interval(found.corrected[:, 1]), mean_interval(found.corrected[:, 2])]
        intervals[2] = Interval(*(max(0.0, end) for end in (intervals[2].value, intervals[2].low, intervals[2].high)))
        doubts = self._doubts(found, tilt, shares[0])
        worst = max(doubts, key=lambda doubt: doubts[doubt])
        carried = not silent and doubts[worst] <= 1
        stable = [self._drift(found, 3 + i) <= 1 for i in range(len(self.ks))]
        passes = zip(self.ks, shares[1:], stable, strict=True)
        nearer = "the points before it are not carried"
        return Point(
            alpha=alpha,
            beta=beta,
            accuracy=intervals[0] if carried else None,
            length=intervals[1] if carried else None,
            kl=intervals[2] if carried else None,
            pass_at={k: share if carried and fine else None for k, share, fine in passes},
            ess=float(np.median(found.ess)),
            ess_harmonic=harmonic(found.ess),
            carried=carried,
            why=None if carried else worst if doubts[worst] > 1 else nearer,
            samples_needed=None if carried or self.problems < MIN_PROBLEMS else ceil(self.n * max(1.0, doubts[worst])),
        )

    def _doubts(self, found: Estimate, tilt: float, accuracy: Interval) -> dict[str, float]:
        """Reasons to be silent, and by what factor each fails; a point passes with none above 1."""
        if self.problems < MIN_PROBLEMS:
            return {f"fewer than {MIN_PROBLEMS} problems": MIN_PROBLEMS / self.problems}
        all_alike = (found.top * found.ess < 1 + 1e-9).all()  # then nothing is weighed, and n may be small
        return {
            "the effective sample size is too small": 0.0 if all_alike else ESS_FLOOR / harmonic(found.ess),
            "half of the samples tell another story": max(self._drift(found, figure) for figure in range(3)),
            "better responses than any seen could change it": self._hidden(found, tilt) / _standard_error(accuracy),
        }

    def _drift(self, found: Estimate, figure: int) -> float:
        """How far halving the samples moves a figure, and the noise of that, over what it may."""
        moved = found.halves[:, figure] - found.corrected[:, figure]
        drift = abs(moved.mean()) + moved.std() / sqrt(self.problems)
        error = found.corrected[:, figure].std() / sqrt(self.problems)
        return float(drift / (STABLE * error)) if drift > 1e-9 else 0.0

    def _hidden(self, found: Estimate, tilt: float) -> float:
        """By how much responses better than any seen could move the accuracy, over STABLE.

        Where a mass a of them hides in a problem, n samples show it with probability n a, and it then has most of that
        problem's weight. How many problems one sample dominates bounds the sum of n a over problems (Poisson, 95 %),
        and a moves the accuracy of its problem by at most a exp(missing reward / beta), or by 1.
        """
        lacking = int((self.missing > 0).sum())
        if not (tilt and lacking):
            return 0.0
        bound = float(stats.chi2.ppf(0.95, 2 * (int((found.top > 0.5).sum()) + 1))) / 2
        gain = exp(min(50.0, tilt * float(self.missing.max())))
        return min(lacking, bound * gain / self.n) / self.problems / STABLE


def share_of_problems(values: Floats) -> Interval:
    """95 % interval for the mean of a share of which `values` [P] are estimates that may leave [0, 1].

    Wilson's at the size p (1 - p) / var(mean), like metrics.share_interval. But a small spread that only a handful of
    problems tells of is hardly known: the size is at most the number of problems times the smaller of P p, P (1 - p).
    """
    problems = len(values)
    p = float(np.clip(values.mean(), 0.0, 1.0))
    if problems < 2:
        return Interval(p, float("nan"), float("nan"))
    rare, variance = problems * min(p, 1 - p), float(values.var(ddof=1))
    gain = max(p * (1 - p), 0.5 / problems) / variance if variance > 0 else 1.0
    size = problems * min(gain, max(1.0, rare))
    t = float(stats.t.ppf(0.975, problems - 1))
    centre = (p + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * sqrt(p * (1 - p) / size + t * t / (4 * size * size))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def harmonic(values: Floats) -> float:
    return float(1 / np.mean(1 / values))


def _standard_error(interval: Interval) -> float:
    return (interval.high - interval.low) / 4
