"""Which answer wins the vote of k of the n samples that there are, for many problems at once. Pure, numpy only.

Let every sample be drawn or not with chance p, by itself: given that k are drawn, all sets of k are as likely, so the
chance sought is that of "it wins, and k are drawn" over that of "k are drawn". Counts are then independent binomials,
whose generating functions multiply, and no number leaves [0, 1], however many samples there are. An answer level with t
rivals wins with chance 1 / (1 + t), the integral of u^t: each level rival counts u, and a Gauss rule sums over u.

Left out on purpose: what answers mean; whatever is to vote together is counted together.
"""

from functools import lru_cache
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Complex = NDArray[np.complex128]

NEVER = 1e-20
"""A chance that adds nothing to a figure."""

DIGITS = 12
"""Of a chance that was summed up: what is certain comes out as 1, not as 1 less rounding."""

AT_ONCE = 200
"""Problems at a time, for memory."""


def vote_chances(count_PA: Ints, unanswered_P: Ints, k: int) -> Floats:
    """Chance that each answer wins the vote of k samples drawn without replacement, [P, A]. With the rest of the
    chances nobody votes. Exact, to rounding.

    count_PA: how many samples gave each answer; 0 pads a row. unanswered_P: how many gave none, and cast no vote. Ties
    go to the answer drawn first: shared evenly. Every problem must have k samples.
    """
    rows = [
        _Rows(count_PA[i : i + AT_ONCE], unanswered_P[i : i + AT_ONCE], k) for i in range(0, len(count_PA), AT_ONCE)
    ]
    return np.concatenate([some.chances() for some in rows])


class _Rows:
    """Some problems. Answers given equally often are as likely to win: sizes_PS holds each size once, times_PS how many
    answers have it. Generating functions are known at the `turns`, points on the upper half of the unit circle: the
    others mirror them."""

    def __init__(self, count_PA: Ints, unanswered_P: Ints, k: int) -> None:
        self.count_PA, self.unanswered_P, self.k = count_PA, unanswered_P, k
        counts = [np.unique(row[row > 0], return_counts=True) for row in count_PA]
        shape = (len(counts), max(1, *(len(sizes) for sizes, _ in counts)))
        self.sizes_PS, self.times_PS = np.zeros(shape, dtype=np.intp), np.zeros(shape, dtype=np.intp)
        for p, (sizes, times) in enumerate(counts):
            self.sizes_PS[p, : len(sizes)], self.times_PS[p, : len(sizes)] = sizes, times
        self.n_P = count_PA.sum(1) + unanswered_P
        self.p_P = (k + 0.5) / (self.n_P + 1)
        wide = float((self.n_P * self.p_P * (1 - self.p_P)).max())
        self.length = min(int(self.n_P.max()) + 1, 64 + 32 * ceil(sqrt(wide)))  # no sum is farther from its mean

    def chances(self) -> Floats:
        drawn_P = np.array([_binomial(int(n), float(p))[self.k] for n, p in zip(self.n_P, self.p_P, strict=True)])
        win_PS = self._sums() / drawn_P[:, None]
        win_PS = np.clip(np.round(win_PS, DIGITS), 0.0, 1.0)
        win_PA = np.zeros(self.count_PA.shape)
        for s in range(win_PS.shape[1]):
            mine = (self.count_PA == self.sizes_PS[:, s, None]) & (self.count_PA > 0)
            win_PA += np.where(mine, win_PS[:, s, None], 0.0)
        return win_PA

    def _sums(self) -> Floats:
        """Chance that an answer of each size wins, and k are drawn, [P, S]."""
        sum_PS = np.zeros(self.sizes_PS.shape)
        chance_PSJ = self._drawn()
        fewer_PSL = np.zeros((*self.sizes_PS.shape, self.length // 2 + 1), dtype=complex)
        for votes in range(1, min(self.k, int(self.sizes_PS.max())) + 1):
            fewer_PSL += chance_PSJ[..., votes - 1, None] * _turns(self.length, votes - 1)
            mine_PS = chance_PSJ[..., votes]
            some_P = mine_PS.max(1) > NEVER
            if some_P.any():
                sum_PS[some_P] += mine_PS[some_P] * self._no_more(votes, some_P, mine_PS[some_P], fewer_PSL[some_P])
        return sum_PS

    def _drawn(self) -> Floats:
        """Chance that 0, 1, ... of the samples that gave an answer are drawn, for each size, [P, S, J]."""
        most = min(self.k, int(self.sizes_PS.max()))
        chance_PSJ = np.zeros((*self.sizes_PS.shape, most + 1))
        for (p, s), size in np.ndenumerate(self.sizes_PS):
            chance_J = _binomial(int(size), float(self.p_P[p]))[: most + 1]
            chance_PSJ[p, s, : len(chance_J)] = chance_J
        return chance_PSJ

    def _no_more(self, votes: int, some_P: Bools, level_PS: Floats, fewer_PSL: Complex) -> Floats:
        """For an answer of each size, in some problems: chance that k - votes others are drawn and no rival has more
        than `votes`, those level shared with, [P, S]."""
        sizes_PS, times_PS = self.sizes_PS[some_P], self.times_PS[some_P]
        able_PS = sizes_PS >= votes
        rivals = int(np.where(able_PS, times_PS, 0).sum(1).max()) - 1
        u_U, weight_U = _gauss(max(0, min(self.k // votes - 1, rivals)))
        rare_P = np.where(able_PS, 0, sizes_PS * times_PS).sum(1)  # they cannot have as many
        one_PL = 1 + self.p_P[some_P, None] * (_turns(self.length, 1) - 1)
        product_PUL = np.repeat((one_PL ** (self.unanswered_P[some_P] + rare_P)[:, None])[:, None], len(u_U), 1)
        level_PSL = level_PS[..., None] * _turns(self.length, votes)
        before, alike, own = [], [], []  # answers of smaller sizes, of the same size, and the one
        for s, able_P in enumerate(able_PS.T):
            one_PUL = fewer_PSL[:, s, None] + u_U[:, None] * level_PSL[:, s, None]
            own.append(np.where(able_P[:, None, None], one_PUL, 1.0))
            alike.append(own[s] ** np.maximum(times_PS[:, s] - 1, 0)[:, None, None])
            before.append(product_PUL)
            product_PUL = product_PUL * alike[s] * own[s]
        chance_PS, after_PUL = np.zeros(able_PS.shape), np.ones_like(product_PUL)
        for s in reversed(range(len(own))):
            others_PL = np.einsum("u,pul->pl", weight_U, before[s] * alike[s] * after_PUL)
            chance_PS[:, s] = _coefficient(others_PL, self.length, self.k - votes)
            after_PUL *= alike[s] * own[s]
        return chance_PS


def _coefficient(values_PL: Complex, length: int, power: int) -> Floats:
    """Of a polynomial known at the turns, the coefficient of this power, [P]."""
    mirrored = np.full(values_PL.shape[1], 2.0)
    mirrored[0] = 1.0
    if length % 2 == 0:
        mirrored[-1] = 1.0
    coefficients: Floats = (values_PL * (mirrored * np.conj(_turns(length, power)))).real.sum(1) / length
    return coefficients


@lru_cache(maxsize=1024)
def _turns(length: int, power: int) -> Complex:
    """A power of the points on the half circle."""
    turns: Complex = np.exp(-2j * np.pi * (np.arange(length // 2 + 1) * power % length) / length)
    return turns


@lru_cache(maxsize=4096)
def _binomial(count: int, p: float) -> Floats:
    """Chances of 0, 1, ..., count: outwards from the likeliest, so that nothing but the negligible vanishes."""
    d = np.arange(1, count + 1)
    ratio = (count - d + 1) / d * (p / (1 - p))
    mode = min(int((count + 1) * p), count)
    below = np.cumprod(1 / ratio[:mode][::-1])[::-1]
    chances: Floats = np.concatenate([below, [1.0], np.cumprod(ratio[mode:])])
    chances /= chances.sum()
    return chances


@lru_cache(maxsize=1024)
def _gauss(degree: int) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, 1] that integrate polynomials up to this degree: to rounding, where it is above 40."""
    x, weight = np.polynomial.legendre.leggauss(min(degree // 2 + 1, ceil(3 * sqrt(degree)) + 1))
    return (x + 1) / 2, weight / 2
