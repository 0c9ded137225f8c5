"""The rank path: the likeliest of k samples of the base, for k = 1, 2, 4, ..., n. Sharpening that is supported at any
length. Pure.

Only the order of log p within a problem is used, so nothing degenerates as log p spreads. It stands for every way to
prefer what is likelier: let Q_u be the base given that log p is in its top share u for the problem; each reweighting
p h(log p) with h increasing (p^alpha, the likeliest of k) is a mixture of Q_u, and none has a higher accuracy on a
problem than the best Q_u.

Left out on purpose: k above the fewest samples of a problem. What lies there takes samples that nobody has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from scipy.special import gammaln

from tiltlab.errors import UserError
from tiltlab.forecast.rank_kl import kl_of_likeliest
from tiltlab.forecast.weighted_samples import FEWEST, Floats, Ints, WeightedSamples, some_problems
from tiltlab.stats.metrics import Interval

DIGITS = 9
"""Decimals of log p to which two responses are equally likely: the same response scored twice differs by rounding."""

TRIMMED = 0.1
"""Share of problems at either end that a mean of log p leaves out: a few absurd responses would move it."""


@dataclass(frozen=True)
class RankPath:
    """The distribution of the likeliest of k samples of the base, by k and problem; unbiased, ties in log p shared
    evenly.

    problems: the P problems with at least FEWEST complete and graded samples; left_out: how many have fewer.
    ks: the K values of k, rising, 1 (the base) first.
    samples_P: how many samples each problem has.
    accuracy_KP: share of right responses, in [0, 1].
    length_KP: in tokens.
    logp_KP: log p of a response under the base, in nats.
    kl_KP: to the base, in nats: log k - (k - 1) / k, less where single responses have a mass to speak of.
    moved_KP: by how much halving the samples moved the KL.
    per_token: whether responses are ranked by log p a token, an ablation.
    """

    problems: tuple[str, ...]
    left_out: int
    ks: tuple[int, ...]
    samples_P: Ints
    accuracy_KP: Floats
    length_KP: Floats
    logp_KP: Floats
    kl_KP: Floats
    moved_KP: Floats
    per_token: bool


@dataclass(frozen=True)
class Match:
    """Where on the path responses of the base are as likely as a tuned model's.

    k: the likeliest of so many, between the path's ks; the last where `reached` is False.
    accuracy: of the path there, with a 95 % interval over problems that knows k is estimated.
    accuracy_P: by problem of the path, at that k.
    reached: whether the path gets there with the samples there are.
    lead: by how much the path's last point is likelier than the tuned model's responses, in nats a response.
    needed: where not reached, a guess of how many samples a problem would (from the tail of log p, taken for normal).
    """

    k: float
    accuracy: Interval
    accuracy_P: Floats
    reached: bool
    lead: float
    needed: float | None


def rank_path(samples: WeightedSamples, ks: Sequence[int] | None = None, *, per_token: bool = False) -> RankPath:
    """The path from samples of the base itself, told from those that are complete and graded.

    ks: default 1, 2, 4, ... and n, the fewest samples that a problem has; those above n are left out.
    per_token: rank by log p a token. No distribution of the objective; it shows how much of the path is a liking for
    length.

    Raises UserError where no problem has FEWEST samples, and ValueError for samples of another proposal.
    """
    if not np.allclose(samples.logp[samples.used], samples.log_q[samples.used]):
        raise ValueError("a rank path takes samples of the base itself")
    keep = samples.used.sum(1) >= FEWEST
    if not keep.any():
        raise UserError(f"forecast: no problem has the {FEWEST} complete, graded samples that it takes")
    known = some_problems(samples, keep)
    samples_P = known.used.sum(1)
    n = int(samples_P.min())
    some = sorted({1, *(ks if ks is not None else (*(2**i for i in range(n.bit_length())), n))})
    some = [k for k in some if k <= n]
    key_PN = known.logp / np.maximum(known.length, 1) if per_token else known.logp
    weight_KPN = np.stack([_weights(np.where(known.used, key_PN, -inf), k) for k in some])
    kl_KP, moved_KP = kl_of_likeliest(known, np.round(key_PN, DIGITS), some)
    return RankPath(
        problems=known.problems,
        left_out=int((~keep).sum()),
        ks=tuple(some),
        samples_P=samples_P,
        accuracy_KP=(weight_KPN * known.correct).sum(-1),
        length_KP=(weight_KPN * known.length).sum(-1),
        logp_KP=(weight_KPN * known.logp).sum(-1),
        kl_KP=kl_KP,
        moved_KP=moved_KP,
        per_token=per_token,
    )


def top_shares(samples: WeightedSamples, shares: Sequence[float]) -> Floats:
    """Accuracy of a random one of the likeliest ceil(u n) of n samples, for each share u, [U, P]: an estimate of Q_u's.

    The largest over u bounds what any preference for likelier responses can have. Problems without a sample are NaN.
    """
    key_PN = _ranked(np.where(samples.used, samples.logp, -inf))
    used_P = samples.used.sum(1)
    rows = []
    for share in shares:
        top_P = np.ceil(share * used_P - 1e-9)
        place_PN = used_P[:, None] - np.arange(samples.used.shape[1])[::-1]  # 1 is the least likely that is used
        chosen_PN = (place_PN > (used_P - top_P)[:, None]).astype(float)
        weight_PN = _shared(key_PN, chosen_PN)
        with np.errstate(invalid="ignore"):
            rows.append((weight_PN * samples.correct).sum(1) / top_P)
    return np.array(rows)


def matched(path: RankPath, tuned_logp: Mapping[str, float]) -> Match | None:
    """Of base responses as likely as the tuned model's, how many are right?

    tuned_logp: mean log p under the base of the tuned model's complete responses, by problem, in nats.

    None where fewer than two problems are in both. k is one for all problems: where the path's log p less the tuned
    model's is 0 in the mean over problems, TRIMMED, interpolated in log k.
    """
    rows = [i for i, name in enumerate(path.problems) if np.isfinite(tuned_logp.get(name, np.nan))]
    if len(rows) < 2:
        return None
    tuned_P = np.array([tuned_logp[path.problems[i]] for i in rows])
    lead_KP = path.logp_KP[:, rows] - tuned_P
    lead_K = _trimmed_mean(lead_KP)
    error = _trimmed_error(lead_KP[-1])
    reached = bool(lead_K[-1] >= -2 * error)
    place = _crossing(lead_K)
    k, accuracy_P = _between(path, place)
    slope = _slope(path.accuracy_KP[:, rows].mean(1), lead_K, place)
    influence = accuracy_P[rows] - slope * _winsorised(_at(lead_KP, place))
    mean, half = float(accuracy_P[rows].mean()), 1.96 * float(influence.std(ddof=1)) / sqrt(len(rows))
    return Match(
        k=k,
        accuracy=Interval(mean, max(0.0, mean - half), min(1.0, mean + half)),
        accuracy_P=accuracy_P,
        reached=reached,
        lead=float(lead_K[-1]),
        needed=None if reached else _needed(path.ks, lead_K),
    )


def _weights(key_PN: Floats, k: int) -> Floats:
    """Chance that each sample is the one with the largest key among k drawn without replacement, ties shared; -inf is
    never drawn. C(i - 1, k - 1) / C(n, k) on the i-th smallest."""
    used_P = (key_PN > -inf).sum(1)
    place_PN = used_P[:, None] - np.arange(key_PN.shape[1])[::-1]
    able = place_PN >= k
    i, n = np.where(able, place_PN, k), used_P[:, None]
    log_weight = gammaln(i) - gammaln(i - k + 1) - gammaln(n + 1) + gammaln(n - k + 1) + log(k)
    return _shared(_ranked(key_PN), np.where(able, np.exp(log_weight), 0.0))


def _ranked(key_PN: Floats) -> tuple[Ints, Ints]:
    """The order of each row from small to large, and the group of equals of each entry in that order; groups are
    numbered through all rows."""
    key_PN = np.round(key_PN, DIGITS)
    order = np.argsort(key_PN, axis=1, kind="stable")
    ordered = np.take_along_axis(key_PN, order, 1)
    new = np.ones(ordered.shape, dtype=np.intp)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return order, new.ravel().cumsum().reshape(new.shape) - 1


def _shared(ranked: tuple[Ints, Ints], weight_PN: Floats) -> Floats:
    """Weights by rank, shared evenly among equals, put back in the order of the samples."""
    order, group = ranked
    flat = group.ravel()
    mean = np.bincount(flat, weight_PN.ravel()) / np.bincount(flat)
    back = np.empty_like(weight_PN)
    np.put_along_axis(back, order, mean[group], 1)
    return back


def _crossing(lead_K: Floats) -> float:
    """Where the lead becomes 0, counted in steps of the path; 0 or the last where it does not."""
    if lead_K[0] >= 0:
        return 0.0
    above = np.flatnonzero(lead_K >= 0)
    if not len(above):
        return float(len(lead_K) - 1)
    right = int(above[0])
    return right - 1 + float(lead_K[right - 1] / (lead_K[right - 1] - lead_K[right]))


def _at(table_KP: Floats, place: float) -> Floats:
    """A row of the table, or the mixture of two."""
    left = min(int(place), len(table_KP) - 1)
    right = min(left + 1, len(table_KP) - 1)
    row: Floats = table_KP[left] + (place - left) * (table_KP[right] - table_KP[left])
    return row


def _between(path: RankPath, place: float) -> tuple[float, Floats]:
    """k, interpolated in log k, and the accuracy of each problem there."""
    return exp(float(_at(np.log(np.array(path.ks, dtype=float)), place))), _at(path.accuracy_KP, place)


def _slope(accuracy_K: Floats, lead_K: Floats, place: float) -> float:
    """By how much accuracy changes a nat of log p, along the path at this place; 0 at its ends."""
    if not 0 < place < len(lead_K) - 1:
        return 0.0
    left = int(place)
    return float((accuracy_K[left + 1] - accuracy_K[left]) / (lead_K[left + 1] - lead_K[left]))


def _trimmed_mean(table_KP: Floats) -> Floats:
    cut = int(TRIMMED * table_KP.shape[1])
    ordered = np.sort(table_KP, axis=1)
    mean: Floats = ordered[:, cut : table_KP.shape[1] - cut].mean(1)
    return mean


def _winsorised(values_P: Floats) -> Floats:
    cut = int(TRIMMED * len(values_P))
    ordered = np.sort(values_P)
    return np.clip(values_P, ordered[cut], ordered[-1 - cut])


def _trimmed_error(values_P: Floats) -> float:
    """Standard error of a trimmed mean (Tukey & McLaughlin 1963)."""
    return float(_winsorised(values_P).std(ddof=1) / ((1 - 2 * TRIMMED) * sqrt(len(values_P))))


def _needed(ks: Sequence[int], lead_K: Floats) -> float:
    """The k at which the lead would be 0, were log p normal in its tail: its largest of k then rises with the square
    root of 2 log k. From the path's last two points that lie a factor of 2 apart or more."""
    before = max((i for i, k in enumerate(ks) if 2 * k <= ks[-1]), default=None)
    if before is None or lead_K[-1] <= lead_K[before]:
        return inf
    roots = [sqrt(2 * log(ks[i])) for i in (before, -1)]
    rise = (lead_K[-1] - lead_K[before]) / (roots[1] - roots[0])
    root = roots[1] - lead_K[-1] / rise
    return exp(root * root / 2) if root < 30 else inf
