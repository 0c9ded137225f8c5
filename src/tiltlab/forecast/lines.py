"""The rank path, answer power and votes as points with intervals, and when a point is withheld. Pure.

Intervals are over problems, and hold the noise of their samples. Thresholds were set, and are held, by simulation
(benchmarks/path_coverage.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from tiltlab.forecast.answers import Votes
from tiltlab.forecast.importance import Figures
from tiltlab.forecast.ranks import RankPath, rank_path
from tiltlab.forecast.reliability import (
    FEW_PROBLEMS,
    MIN_PROBLEMS,
    drift,
    share_of_problems,
    skewed_mean_of_problems,
)
from tiltlab.forecast.rise import Rise, rises
from tiltlab.forecast.steps import Steps, steps
from tiltlab.forecast.voting import A_VOTE, AnswerPath, VotePath, answer_path, vote_path
from tiltlab.forecast.weighted_samples import FEWEST, Floats, WeightedSamples, some_problems
from tiltlab.stats.metrics import Interval

QUARTER = 4
"""Samples for each of k from which halving them tells how far the KL of the likeliest of k is off, where it is."""

A_POWER = 8
"""Samples of a problem for each of g: with fewer, a close race between two answers is taken for none."""

STORY = 2.0
"""Standard errors by which halving the samples may move answer power: a third of that may be left, and widens its
interval."""

SPARED = 0.1
"""Share of problems, those with the fewest samples, that are left out of the rank path, not to end it for all."""

AGREEING = 0.95
"""Share of problems that must have g samples with one answer. Where many have none, what samples show is how few of
them there are."""

LEFT = 1 / 3
"""Of what halving the samples moves: so much may be left of the bias, and widens the interval."""


@dataclass(frozen=True)
class LinePoint:
    """A point of the rank path (strength: k), of answer power (g), or of the votes (k).

    accuracy, length (tokens), kl (nats, to the base): averages over problems, None where they are withheld; the KL may
    be withheld alone. logp: under the base, in nats a response, on the rank path. agreement: chance that two
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


@dataclass(frozen=True)
class Lines:
    """The ways to sharpen that need no label, each from the base as far as its samples go.

    ranks: the likeliest of k: the sharpening line. token_ranks: by log p a token, an ablation.
    like_length: the likeliest of k responses of like length (accuracy and length alone): what of the line is no liking
        for length.
    powers, votes: answer power g and the vote of k; empty where there is nothing to vote on.
    unvoted: why there is nothing to vote on. unanswered: share of responses that have no answer.
    steps: what a first step of each would do. rises: what training on each would come to.
    """

    ranks: tuple[LinePoint, ...]
    token_ranks: tuple[LinePoint, ...]
    like_length: tuple[LinePoint, ...]
    powers: tuple[LinePoint, ...]
    votes: tuple[LinePoint, ...]
    unvoted: str | None
    unanswered: float | None
    steps: Steps
    rises: tuple[Rise, ...]


def lines_of(samples: WeightedSamples, votes: Votes | str) -> Lines:
    """From samples of the base itself. votes: its answers, or why there are none to vote on.

    Raises UserError where no problem has enough samples for a rank path.
    """
    most = some_problems(samples, samples.used.sum(1) >= max(FEWEST, _spared(samples)))
    ranks, token_ranks = rank_path(most), rank_path(most, per_token=True)
    known = None if isinstance(votes, str) else votes
    voted = vote_path(known) if known else None
    towards = steps(some_problems(samples, samples.used.sum(1) >= FEWEST), known)
    return Lines(
        ranks=rank_line(ranks),
        token_ranks=rank_line(token_ranks),
        like_length=_like_length(most),
        powers=answer_line(answer_path(known), int(known.samples_P.min())) if known else (),
        votes=vote_line(voted) if voted else (),
        unvoted=votes if isinstance(votes, str) else None,
        unanswered=float((known.unanswered_P / known.samples_P).mean()) if known else None,
        steps=towards,
        rises=rises(ranks, voted, towards.likelihood.slope),
    )


def _spared(samples: WeightedSamples) -> float:
    """The fewest samples that a problem has, but for the SPARED problems that have the fewest."""
    return float(np.quantile(samples.used.sum(1), SPARED, method="lower"))


def _like_length(samples: WeightedSamples) -> tuple[LinePoint, ...]:
    """The mean of the rank paths of thirds of each problem's samples by length; empty where they are too few."""
    if (samples.used.sum(1) < 3 * FEWEST).any() or len(samples.problems) < MIN_PROBLEMS:
        return ()
    order_PN = np.argsort(np.where(samples.used, samples.length, np.inf), axis=1, kind="stable")
    place_PN = np.empty_like(order_PN)
    np.put_along_axis(place_PN, order_PN, np.broadcast_to(np.arange(order_PN.shape[1]), order_PN.shape), 1)
    third_PN = 3 * place_PN // np.maximum(samples.used.sum(1, keepdims=True), 1)
    paths = [rank_path(replace(samples, used=samples.used & (third_PN == third))) for third in range(3)]
    ks = [k for k in paths[0].ks if all(k in path.ks for path in paths)]
    rows = [[path.ks.index(k) for path in paths] for k in ks]
    tables = ([path.accuracy_KP for path in paths], [path.length_KP for path in paths])
    means = [[np.mean([t[i] for t, i in zip(table, row, strict=True)], axis=0) for row in rows] for table in tables]
    return tuple(
        LinePoint(float(k), share_of_problems(right_P), skewed_mean_of_problems(length_P), None)
        for k, right_P, length_P in zip(ks, *means, strict=True)
    )


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
            f"a power takes {A_POWER} samples for each of g": 0.0 if g == 1 else A_POWER * g / samples,
            "half of the samples tell another story": max(drift(figures, figure) for figure in (0, 1)) / STORY,
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
    """Many rare answers make the KL harder to tell than the accuracy: it may be withheld alone."""
    accuracy_P, length_P, kl_P, agreement_P = figures.corrected.T
    accuracy, length, kl, agreement = (_left(figures.halves[:, i] - figures.corrected[:, i]) for i in range(4))
    told = drift(figures, 2) <= STORY
    return LinePoint(
        g,
        share_of_problems(accuracy_P, accuracy),
        skewed_mean_of_problems(length_P, length),
        _kl(kl_P, kl) if told else None,
        agreement=share_of_problems(agreement_P, agreement),
        why=None if told else "half of the samples tell another story of the KL",
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
