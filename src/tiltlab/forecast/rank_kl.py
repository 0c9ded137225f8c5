"""KL to the base of the likeliest of k samples, where some responses have a mass to speak of. Pure.

Let a response of mass m have mass F below it in the order of log p. As the likeliest of k it has (F + m)^k - F^k, ties
shared. Where no response has a mass, that makes log k - (k - 1) / k whatever the distribution; each that has one lowers
it, by the integral of k u^(k-1) log(k u^(k-1)) over u from F to F + m less what one level density there would make.

Of a response that was seen m is known: log p says it. What was not seen has, together, the rest of the mass, and is
shared out among seen responses as Horvitz & Thompson (1952) would: m (1 - s) / s each, s the chance to be seen at all.
"""

from collections.abc import Sequence
from math import log

import numpy as np

from tiltlab.forecast.weighted_samples import Floats, WeightedSamples

LEAST = 1e-290
"""A mass that is none, and can still be divided by."""


def kl_of_likeliest(samples: WeightedSamples, key_PN: Floats, ks: Sequence[int]) -> tuple[Floats, Floats]:
    """KL in nats by k and problem, [K, P], and by how much halving the samples moved it.

    key_PN: by what responses are ranked, equal where they are tied. Masses of groups of tied responses are estimates,
    so that what halves of the samples say, less what all say, is as much bias as is left: it is taken away.
    """
    whole, halves = [], []
    for p, used in enumerate(samples.used):
        share = used.sum() / max(1, samples.counted[p].sum())  # of complete responses, whose order this is
        mass = np.exp(np.minimum(samples.logp[p, used], 0.0)) / share
        rows = np.stack([key_PN[p, used], samples.response[p, used], mass])
        whole.append(_of_problem(rows, ks))
        halves.append([_of_problem(half, ks) for half in (rows[:, ::2], rows[:, 1::2])])
    moved_KP = np.array(whole).T - np.array(halves).mean(1).T
    return np.array(whole).T + moved_KP, moved_KP


def _of_problem(rows_3N: Floats, ks: Sequence[int]) -> list[float]:
    """rows_3N: by what each sample is ranked, which response it is, and the mass of that."""
    key_N, _, mass_N = rows_3N
    _, first = np.unique(rows_3N[:2], axis=1, return_index=True)
    own = np.maximum(mass_N[first], LEAST)
    own /= max(1.0, own.sum())
    with np.errstate(divide="ignore"):
        seen = -np.expm1(len(key_N) * np.log1p(-own))
    hidden = own * (1 - seen) / seen
    stands_for = own + hidden * max(0.0, 1 - own.sum()) / max(hidden.sum(), LEAST)

    _, level = np.unique(key_N[first], return_inverse=True)
    total = np.asarray(np.bincount(level, stands_for), dtype=float)
    alone = np.bincount(level) == 1  # one response: its mass is known, and it stands for others like it
    mass = np.where(alone, np.bincount(level, own), total).astype(float)
    above = total[::-1].cumsum()[::-1] - total
    top: Floats = np.clip(1 - above, mass, 1.0)
    return [log(k) - (k - 1) / k - float((total / mass * _lost(top - mass, top, k)).sum()) for k in ks]


def _lost(low: Floats, high: Floats, k: int) -> Floats:
    """What a response that reaches from `low` to `high` in the order takes from the KL."""

    def until(u: Floats) -> Floats:  # the integral of k u^(k-1) log(k u^(k-1)) from 0
        whole: Floats = u**k * (log(k) + (k - 1) * (np.log(np.maximum(u, LEAST)) - 1 / k))
        return whole

    share = high**k - low**k
    level = share * np.log(np.maximum(share, LEAST) / np.maximum(high - low, LEAST))
    return np.maximum(0.0, until(high) - until(low) - level)
