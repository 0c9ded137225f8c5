"""How far sharpening, and how far a reward, can take a model: told from its own samples, before any training. Pure.

From n samples a problem of the base p, with log p and grades: accuracy, length and KL of the optima p^alpha
exp(r / beta) / Z, averaged over problems, with an interval over the population that the problems come from; and *no
number* where the samples do not support it. How a figure is made is in importance.py, when it is withheld in
reliability.py, and what that is worth in docs/forecast.md.

Left out on purpose: modes that no sample has hit. A response of probability 1e-4 that p^alpha would choose cannot be
seen in a hundred samples, nor can any weight tell; only another proposal (a lower temperature, a beam) can look for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np
from scipy.special import softmax

from tiltlab.errors import UserError
from tiltlab.forecast.answers import Votes, votes_of
from tiltlab.forecast.importance import enough, estimate
from tiltlab.forecast.lines import Lines, lines_of
from tiltlab.forecast.reliability import FEW_PROBLEMS, doubts_of, drift, intervals
from tiltlab.forecast.weighted_samples import Floats, WeightedSamples, from_records, some_problems
from tiltlab.stats.metrics import Interval, mean_interval
from tiltlab.types import Record

ALPHAS = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
NEAR = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Further alphas where responses are long: 1 + these over the spread of log p in nats, as far as they lie below all
above 1 in ALPHAS. There a spread of 25 nats lets alpha go to 1.05."""

BETAS = (2.0, 1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Point:
    """The forecast for p^alpha exp(r / beta) / Z; beta None: without the reward.

    accuracy, length (tokens) and kl (nats, to the base) are averages over problems, None where they are not supported;
    pass_at holds pass@k by k, each None where it alone is not supported. ess: effective samples a problem, the median
    over problems; ess_harmonic: their harmonic mean, freed of bias, which the worst problems govern. why: why there is
    no number. samples_needed: how many samples a problem would give one, at least: the present number times the factor
    by which the worst check fails, since all fall as 1 / n or faster once the mass has been seen; None where it is
    supported, where another point must be first, and where it takes more problems.
    """

    alpha: float
    beta: float | None
    accuracy: Interval | None
    length: Interval | None
    kl: Interval | None
    pass_at: dict[int, Interval | None]
    ess: float
    ess_harmonic: float
    supported: bool
    why: str | None
    samples_needed: int | None


@dataclass(frozen=True)
class Forecast:
    """Points by alpha; at each alpha first without the reward, then by beta from large to small.

    slope: Cov under p of (correct, log p), in nats: d accuracy / d alpha at alpha = 1. problems: how many the averages
    are over; left_out more had too few samples to use. samples_per_problem: the median number used of each. truncated,
    ungraded: samples not used, being prefixes, or having no grade. lines: the rank path, answer power and votes; None
    where only weighted samples are known.
    """

    points: tuple[Point, ...]
    slope: Interval
    problems: int
    left_out: int
    samples_per_problem: float
    truncated: int
    ungraded: int
    lines: Lines | None = None


def forecast(
    samples: WeightedSamples,
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] = BETAS,
    ks: Sequence[int] = (),
    best_reward: float = 1.0,
) -> Forecast:
    """The forecast at every alpha, and at 1, without the reward and with it at each beta, and pass@k at each k.

    alphas: default ALPHAS, and where responses are long, alphas nearer to 1 without a reward (NEAR).
    best_reward: the largest reward that a response can get; a larger one that was seen takes its place. Where a point
    is withheld, so is what lies beyond it: on the sharpening path whatever is further from alpha = 1 on that side, and
    at each alpha whatever has a smaller beta.

    Raises UserError for an alpha or beta that is not above 0, and where no problem has enough samples.
    """
    for name, values in (("alpha", alphas or ALPHAS), ("beta", betas)):
        if not all(0 < value < inf for value in values):
            raise UserError(f"forecast: every {name} must be a number above 0, got {list(values)}")
    keep = enough(samples)
    if not keep.any():
        raise UserError("forecast: no problem has the four complete, graded samples (of each proposal) that it takes")
    known = some_problems(samples, keep)
    forecaster = _Forecaster(known, tuple(ks), best_reward)
    lines: dict[float, list[Point]] = {}
    near = _near(known) if alphas is None else set()
    alphas = ALPHAS if alphas is None else alphas
    above = sorted({1.0, *near, *(alpha for alpha in alphas if alpha >= 1)})
    below = sorted({alpha for alpha in alphas if alpha < 1}, reverse=True)
    for side in (above, below):
        withheld = False
        for alpha in side:
            lines[alpha] = forecaster.line(alpha, () if alpha in near else sorted(set(betas), reverse=True), withheld)
            withheld = not lines[alpha][0].supported
    return Forecast(
        points=tuple(point for alpha in sorted(lines) for point in lines[alpha]),
        slope=covariance(known),
        problems=len(known.problems),
        left_out=int((~keep).sum()),
        samples_per_problem=float(np.median(known.used.sum(1))),
        truncated=samples.truncated,
        ungraded=samples.ungraded,
    )


def _near(samples: WeightedSamples) -> set[float]:
    """Alphas nearer to 1 than any of ALPHAS, by the spread of log p within a problem; to two digits above 1."""
    known = np.where(samples.used, samples.logp, np.nan)
    spread = float(np.median(np.nanstd(known, axis=1)))
    steps = [float(f"{part / spread:.2g}") for part in NEAR] if spread > 0 else []
    first = min(alpha for alpha in ALPHAS if alpha > 1)
    return {1 + step for step in steps if 1 + step < first}


def covariances(samples: WeightedSamples) -> Floats:
    """Cov under p of (correct, log p) for each problem, in nats, [P]: unbiased where the samples are from p itself."""
    log_weight = np.where(samples.used, samples.logp - samples.log_q, -np.inf)
    share = softmax(log_weight, axis=1)
    centred = samples.logp - (share * samples.logp).sum(1, keepdims=True)
    unbiased: Floats = (share * centred * samples.correct).sum(1) / (1 - (share**2).sum(1))
    return unbiased


def covariance(samples: WeightedSamples) -> Interval:
    """The mean of `covariances` over problems: the slope of accuracy in alpha at alpha = 1, before anything is drawn
    from p^alpha. Above 0, a little sharpening helps."""
    return mean_interval(covariances(samples))


def make_forecast(
    records: Sequence[Record],
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] = BETAS,
    ks: Sequence[int] = (),
) -> Forecast:
    """`base_forecast` from a model's own responses at temperature 1, as `evaluate` returns them and `read_records`
    reads them. Raises as it does, and UserError for records without log p."""
    own = [replace(record, ref_logp=record.logp) for record in records]  # ref_logp may be of another model
    return base_forecast(own, alphas, betas, ks)


def base_forecast(
    records: Sequence[Record],
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] = BETAS,
    ks: Sequence[int] = (),
) -> Forecast:
    """`forecast` with the lines that need no label, from responses of the base that have its log p in `ref_logp`."""
    samples = from_records(records)
    votes: Votes | str
    try:
        votes = votes_of(records)
    except UserError as error:  # no answers, or free text: there is nothing to vote on, and that is said
        votes = str(error).removeprefix("forecast: ")
    return replace(forecast(samples, alphas, betas, ks), lines=lines_of(samples, votes))


class _Forecaster:
    def __init__(self, samples: WeightedSamples, ks: tuple[int, ...], best_reward: float) -> None:
        self.samples, self.ks = samples, ks
        self.samples_per_problem = float(np.median(samples.used.sum(1)))
        top = np.where(samples.used, samples.reward, -inf).max(1)
        self.missing = np.maximum(max(best_reward, float(top.max())) - top, 0.0)

    def line(self, alpha: float, betas: Sequence[float], withheld: bool) -> list[Point]:
        """The points at one alpha. `withheld`: a point nearer to alpha = 1 was, and so are these."""
        points: list[Point] = []
        for beta in (None, *betas):
            points.append(self._point(alpha, beta, withheld))
            withheld = withheld or not points[-1].supported
        return points

    def _point(self, alpha: float, beta: float | None, withheld: bool) -> Point:
        tilt = 0.0 if beta is None else 1 / beta
        figures = estimate(self.samples, alpha, tilt, self.ks)
        accuracy, length, kl, *passes = intervals(figures)
        doubts = doubts_of(figures, accuracy, tilt * self.missing)
        worst = max(doubts, key=lambda reason: doubts[reason])
        fails = doubts[worst] > 1
        supported = not (withheld or fails)
        stable = [supported and drift(figures, 3 + i) <= 1 for i in range(len(self.ks))]
        return Point(
            alpha=alpha,
            beta=beta,
            accuracy=accuracy if supported else None,
            length=length if supported else None,
            kl=kl if supported else None,
            pass_at={k: share if fine else None for k, share, fine in zip(self.ks, passes, stable, strict=True)},
            ess=float(np.median(figures.ess)),
            ess_harmonic=figures.ess_harmonic,
            supported=supported,
            why=None if supported else worst if fails else "a point before it is not supported",
            samples_needed=ceil(self.samples_per_problem * doubts[worst]) if fails and worst != FEW_PROBLEMS else None,
        )
