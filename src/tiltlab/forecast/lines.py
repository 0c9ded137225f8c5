"""The rank path, answer power and votes as points with intervals, and when a point is withheld. Pure.

Intervals are over problems, and hold the noise of their samples. Thresholds were set, and are held, by simulation
(benchmarks/path_coverage.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tiltlab.forecast.importance import Figures
from tiltlab.forecast.ranks import RankPath
from tiltlab.forecast.reliability import (
    FEW_PROBLEMS,
    MIN_PROBLEMS,
    drift,
    share_of_problems,
    skewed_mean_of_problems,
)
from tiltlab.forecast.voting import A_VOTE, AnswerPath, VotePath
from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.metrics import Interval

QUARTER = 4
"""Samples for each of k from which halving them tells how far the KL of the likeliest of k is off, where it is."""

AGREEING = 0.95
"""Share of problems that must have g samples with one answer. Where many have none, what samples show is how few of
them there are."""

LEFT = 1 / 3
"""Of what halving the samples moves: so much may be left of the bias, and widens the interval."""


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
    return tuple(
        LinePoint(
            float(k),
            share_of_problems(path.accuracy_KP[i]),
            skewed_mean_of_problems(path.length_KP[i]),
            _rank_kl(path, i),
            logp=skewed_mean_of_problems(path.logp_KP[i]),
        )
        for i, k in enumerate(path.ks)
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
            points.append(_answer_point(g, figures))
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
                skewed_mean_of_problems(path.length_KP[i]),
                _kl(path.kl_KP[i], _left(path.moved_KP[i])) if known else None,
                agreement=None if np.isnan(agreement_P).any() else share_of_problems(agreement_P),
                why=None if known else f"the KL of a vote takes {A_VOTE} samples for each that votes",
                samples_needed=None if known else A_VOTE * k,
            )
        )
    return tuple(points)


def _factor(groups_P: Floats) -> float:
    """By what factor too few problems have samples that agree."""
    return AGREEING / max(float((groups_P > 0).mean()), 1e-6)


def _rank_kl(path: RankPath, place: int) -> Interval | None:
    """None where groups of tied responses have masses that the samples do not tell: log k - (k - 1) / k bounds it."""
    kl_P, moved_P = path.kl_KP[place], path.moved_KP[place]
    error = float(kl_P.std()) / np.sqrt(len(kl_P))
    if path.ks[place] * QUARTER > path.samples_P.min() and abs(float(moved_P.mean())) > error + 1e-9:
        return None
    return _kl(kl_P, _left(moved_P))


def _answer_point(g: float, figures: Figures) -> LinePoint:
    accuracy_P, length_P, kl_P, agreement_P = figures.corrected.T
    accuracy, length, kl, agreement = (_left(figures.halves[:, i] - figures.corrected[:, i]) for i in range(4))
    return LinePoint(
        g,
        share_of_problems(accuracy_P, accuracy),
        skewed_mean_of_problems(length_P, length),
        _kl(kl_P, kl),
        agreement=share_of_problems(agreement_P, agreement),
    )


def _left(moved_P: Floats) -> float:
    """Variance of a mean over problems for what may be left of its bias."""
    return (LEFT * float(moved_P.mean())) ** 2


def _kl(values_P: Floats, extra: float) -> Interval:
    """No KL is below 0."""
    mean = skewed_mean_of_problems(values_P, extra)
    return Interval(max(0.0, mean.value), max(0.0, mean.low), max(0.0, mean.high))


def _few(strengths: Sequence[float]) -> tuple[LinePoint, ...]:
    return tuple(_withheld(float(strength), FEW_PROBLEMS) for strength in strengths)


def _withheld(strength: float, why: str, needed: int | None = None) -> LinePoint:
    return LinePoint(strength, None, None, None, supported=False, why=why, samples_needed=needed)
