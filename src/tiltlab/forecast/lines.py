"""The rank path, answer power and votes as points with intervals, and when a point is withheld. Pure.

Intervals are over problems, and hold the noise of their samples. Thresholds were set, and are held, by simulation
(benchmarks/path_coverage.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tiltlab.forecast.ranks import RankPath
from tiltlab.forecast.reliability import (
    FEW_PROBLEMS,
    MIN_PROBLEMS,
    drift,
    intervals,
    mean_of_problems,
    share_of_problems,
)
from tiltlab.forecast.voting import A_VOTE, AnswerPath, VotePath
from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.metrics import Interval

AGREEING = 0.95
"""Share of problems that must have g samples with one answer. Where many have none, what samples show is how few of
them there are."""

LEFT = 0.25
"""Of what halving the samples corrects in the KL of a vote: so much may be left, and widens its interval."""


@dataclass(frozen=True)
class LinePoint:
    """A point of the rank path (strength: k), of answer power (g), or of the votes (k).

    accuracy, length (tokens), kl (nats, to the base): averages over problems, None where they are withheld; a vote may
    have an accuracy and no KL. logp: under the base, in nats a response, on the rank path. agreement: chance that two
    responses give the same answer, on the other two.
    supported: whether accuracy and length are numbers. why: why something is withheld. samples_needed: of a problem, at
    least, that would give it.
    """

    strength: float
    accuracy: Interval | None
    length: Interval | None
    kl: Interval | None
    logp: Interval | None = None
    agreement: Interval | None = None
    supported: bool = True
    why: str | None = None
    samples_needed: int | None = None


def rank_line(path: RankPath) -> tuple[LinePoint, ...]:
    """Supported for every k of the path: its figures are unbiased."""
    if len(path.problems) < MIN_PROBLEMS:
        return _few(path.ks)
    rows = zip(path.ks, path.accuracy_KP, path.length_KP, path.kl_KP, path.logp_KP, strict=True)
    return tuple(
        LinePoint(float(k), share_of_problems(right_P), mean_of_problems(length_P), _kl(kl_P), mean_of_problems(logp_P))
        for k, right_P, length_P, kl_P, logp_P in rows
    )


def answer_line(path: AnswerPath, samples: int) -> tuple[LinePoint, ...]:
    """Supported where nearly every problem has g samples that agree, and half of the samples tell the same story.

    samples: the fewest that a problem has.
    """
    if len(path.problems) < MIN_PROBLEMS:
        return _few(path.gs)
    points: list[LinePoint] = []
    for i, g in enumerate(path.gs):
        figures = path.figures(i)
        accuracy, length, kl, agreement = intervals(figures)
        doubts = {
            "too few problems have so many samples that agree": 0.0 if g == 1 else _factor(path.groups_GP[i]),
            "half of the samples tell another story": max(drift(figures, figure) for figure in range(3)),
        }
        worst = max(doubts, key=lambda reason: doubts[reason])
        fails = doubts[worst] > 1
        if points and not points[-1].supported:
            points.append(_withheld(g, worst if fails else "a point before it is not supported"))
        elif fails:
            points.append(_withheld(g, worst, ceil(samples * min(doubts[worst], 1e6))))
        else:
            points.append(LinePoint(g, accuracy, length, kl, agreement=agreement))
    return tuple(points)


def vote_line(path: VotePath) -> tuple[LinePoint, ...]:
    """Accuracy and length are unbiased, and supported for every k of the path; the KL for k up to n / A_VOTE."""
    if len(path.problems) < MIN_PROBLEMS:
        return _few(path.ks)
    points = []
    for i, k in enumerate(path.ks):
        known = not np.isnan(path.kl_KP[i]).any()
        agreement_P = path.agreement_KP[i]
        points.append(
            LinePoint(
                float(k),
                share_of_problems(path.accuracy_KP[i]),
                mean_of_problems(path.length_KP[i]),
                _kl(path.kl_KP[i], (LEFT * float(path.moved_KP[i].mean())) ** 2) if known else None,
                agreement=None if np.isnan(agreement_P).any() else share_of_problems(agreement_P),
                why=None if known else f"the KL of a vote takes {A_VOTE} samples for each that votes",
                samples_needed=None if known else A_VOTE * k,
            )
        )
    return tuple(points)


def _factor(groups_P: Floats) -> float:
    """By what factor too few problems have samples that agree."""
    return AGREEING / max(float((groups_P > 0).mean()), 1e-6)


def _kl(values_P: Floats, extra: float = 0.0) -> Interval:
    """No KL is below 0."""
    mean = mean_of_problems(values_P, extra)
    return Interval(max(0.0, mean.value), max(0.0, mean.low), max(0.0, mean.high))


def _few(strengths: Sequence[float]) -> tuple[LinePoint, ...]:
    return tuple(_withheld(float(strength), FEW_PROBLEMS) for strength in strengths)


def _withheld(strength: float, why: str, needed: int | None = None) -> LinePoint:
    return LinePoint(strength, None, None, None, supported=False, why=why, samples_needed=needed)
