"""Accuracy against KL from the base, in nats: the paths of a forecast, and what can be reached at a price. Pure.

For a reward of 0 and 1 no law has a higher mean accuracy at the same mean KL than p exp(r / beta) / Z (it maximises
accuracy - beta KL), so the reward path is the frontier, and every sampler and every trained policy lies below it.

Left out on purpose: anything beyond the last carried point of a path.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import isfinite, nan

from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.stats.by_problem import by_problem
from tiltlab.stats.metrics import Interval
from tiltlab.types import Record


def sharpening_path(forecast: Forecast) -> tuple[Point, ...]:
    """p^alpha from alpha = 1 upward, as far as it is carried."""
    return tuple(p for p in forecast.points if p.carried and p.beta is None and p.alpha >= 1)


def reward_path(forecast: Forecast, alpha: float = 1.0) -> tuple[Point, ...]:
    """p^alpha exp(r / beta) from no reward to the smallest beta that is carried; other alphas are the family."""
    return tuple(p for p in forecast.points if p.carried and p.alpha == alpha)


def family(forecast: Forecast) -> dict[float, tuple[Point, ...]]:
    """The reward path of each alpha that has a carried point."""
    paths = {alpha: reward_path(forecast, alpha) for alpha in sorted({p.alpha for p in forecast.points})}
    return {alpha: path for alpha, path in paths.items() if path}


def accuracy_at(path: Sequence[Point], kl: float) -> Interval | None:
    """Accuracy of a path at this KL from the base, value and both ends interpolated between its points; None for a KL
    that it does not get to, in either direction."""
    known = sorted((p.kl.value, p.accuracy) for p in path if p.kl is not None and p.accuracy is not None)
    if not known or not known[0][0] <= kl <= known[-1][0]:
        return None
    right = bisect_left([at for at, _ in known], kl)
    if known[right][0] == kl:
        return known[right][1]
    (before, lower), (after, upper) = known[right - 1], known[right]
    part = (kl - before) / (after - before)
    return Interval(*(_between(getattr(lower, end), getattr(upper, end), part) for end in ("value", "low", "high")))


def least_kl(forecast: Forecast, accuracy: float) -> float | None:
    """KL from the base, in nats, at which the reward path has this accuracy: no law has it for less. None for an
    accuracy below the base's, or above what the path is carried to."""
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
    return _between(lower, upper, (accuracy - before) / (after - before))


def kl_by_z(
    records: Sequence[Record], log_z_P: Sequence[float], alpha: float, beta: float | None = None
) -> dict[str, float]:
    """KL from the base, in nats, of p^alpha exp(r / beta) / Z by problem, from samples of it and log Z of each problem
    in the order of the records: E[(alpha - 1) log p + r / beta] - log Z. NaN where no sample or no Z tells."""
    found = {}
    for (problem, group), log_z in zip(by_problem(records).items(), log_z_P, strict=True):
        tilts = [
            (alpha - 1) * record.ref_logp + (0.0 if beta is None else record.reward / beta)
            for record in group
            if record.complete
        ]
        found[problem] = sum(tilts) / len(tilts) - log_z if tilts and isfinite(log_z) else nan
    return found


def _between(lower: float, upper: float, part: float) -> float:
    return lower + part * (upper - lower)


def reached(forecast: Forecast, accuracy: float, kl: float) -> float | None:
    """Share of what can be gained over the base at this KL that a policy of this accuracy has gained; None where the
    reward path does not carry so far, or has nothing to gain there. Above 1 only by chance or where the forecast is
    of other problems."""
    path = reward_path(forecast)
    best, base = accuracy_at(path, kl), path[0].accuracy if path else None
    if best is None or base is None or best.value <= base.value:
        return None
    return (accuracy - base.value) / (best.value - base.value)
