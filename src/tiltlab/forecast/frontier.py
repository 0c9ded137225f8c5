"""Accuracy against KL from the base, in nats: the paths of a forecast, and what can be reached at a price. Pure.

For a reward of 0 and 1 no distribution has a higher mean accuracy at the same mean KL than p exp(r / beta) / Z (it
maximises accuracy - beta KL), so the reward path is the frontier, and every sampler and every trained policy lies below
it.

Left out on purpose: anything beyond the last supported point of a path.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import isfinite, nan

from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.forecast.lines import LinePoint
from tiltlab.stats.by_problem import by_problem
from tiltlab.types import Record


def rank_points(forecast: Forecast) -> tuple[LinePoint, ...]:
    """The likeliest of k that have an accuracy and a KL: the sharpening line, on which p^alpha lies where that is
    supported."""
    return _known(forecast.lines.ranks if forecast.lines else ())


def voting_points(forecast: Forecast) -> tuple[LinePoint, ...]:
    """Answer power, likewise: the voting line. Votes of k, whose KL takes more samples, lie on it or beside it."""
    return _known(forecast.lines.powers if forecast.lines else ())


def vote_points(forecast: Forecast) -> tuple[LinePoint, ...]:
    """The vote of k, likewise."""
    return _known(forecast.lines.votes if forecast.lines else ())


def _known(points: Sequence[LinePoint]) -> tuple[LinePoint, ...]:
    return tuple(point for point in points if point.accuracy is not None and point.kl is not None)


def sharpening_path(forecast: Forecast) -> tuple[Point, ...]:
    """p^alpha from alpha = 1 upward, as far as it is supported."""
    return tuple(p for p in forecast.points if p.supported and p.beta is None and p.alpha >= 1)


def reward_path(forecast: Forecast) -> tuple[Point, ...]:
    """p exp(r / beta) from no reward to the smallest beta that is supported."""
    return tuple(p for p in forecast.points if p.supported and p.alpha == 1)


def least_kl(forecast: Forecast, accuracy: float) -> float | None:
    """KL from the base, in nats, at which the reward path has this accuracy: no distribution has it for less. None for
    an accuracy below the base's, or above the last supported point of the path."""
    path = [
        (p.accuracy.value, p.kl.value) for p in reward_path(forecast) if p.kl is not None and p.accuracy is not None
    ]
    known = sorted(path)
    if not known or not known[0][0] <= accuracy <= known[-1][0]:
        return None
    right = bisect_left(known, (accuracy, 0.0))
    if right == 0 or known[right][0] == accuracy:
        return known[right][1]
    (before, lower), (after, upper) = known[right - 1], known[right]
    return lower + (accuracy - before) / (after - before) * (upper - lower)


def kl_by_z(
    records: Sequence[Record], log_z_P: Sequence[float], alpha: float, beta: float | None = None
) -> dict[str, float]:
    """KL from the base, in nats, of p^alpha exp(r / beta) / Z by problem, from samples of it and log Z of each problem
    in the order of the records: E[(alpha - 1) log p + r / beta] - log Z. NaN where no sample or no Z tells."""
    kls = {}
    for (problem, group), log_z in zip(by_problem(records).items(), log_z_P, strict=True):
        tilts = [
            (alpha - 1) * record.ref_logp + (0.0 if beta is None else record.reward / beta)
            for record in group
            if record.complete
        ]
        kls[problem] = sum(tilts) / len(tilts) - log_z if tilts and isfinite(log_z) else nan
    return kls
