"""Self-normalised importance weights: figures of p^alpha exp(r / beta) / Z from samples drawn elsewhere. Pure.

A figure of one problem is a ratio of sums over its samples, so it is biased by about 1 / ESS, in the same direction on
each problem: an average over problems does not help, and more problems only make the interval too narrow for it. Hence
the jackknife (Quenouille 1956), which takes the first order of the bias away, and the halves, which show what is left.

Left out on purpose: smoothed weights (PSIS). A tail fitted to the few large weights of one problem moves every problem
the same way, and that bias cannot be told from a finding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltlab.forecast.weighted_samples import Floats, WeightedSamples

FLOOR = 20.0
"""Nats below a problem's largest weight at which smaller ones stop: leaving the largest out must leave a sum that is
still exact to a few digits. Moves no figure by more than n e^-20."""


@dataclass(frozen=True)
class Figures:
    """Figures of one distribution by problem, [P, F] with columns accuracy, length, KL, and shares in [0, 1].

    plain: as the samples have them.
    corrected: freed of their bias of order 1 / n; estimates may leave the range of what they estimate.
    halves: the mean of the corrected figures of two halves of the samples.
    """

    plain: Floats
    corrected: Floats
    halves: Floats


@dataclass(frozen=True)
class Estimate(Figures):
    """Figures by importance weights; after the KL, pass@k for each k asked for.

    ess: effective sample size (sum w)^2 / sum w^2, [P].
    load: 1 / ESS with the jackknife, [P]: where a heavy response is seen once in a while, the plain one looks far
        better than it is.
    top: the largest share that one unit has of its problem's weight, [P].
    samples_per_problem: used units, [P].
    """

    ess: Floats
    load: Floats
    top: Floats
    samples_per_problem: Floats

    @property
    def ess_harmonic(self) -> float:
        """Harmonic mean of the effective sample size over problems."""
        return float(1 / max(self.load.mean(), 1 / self.samples_per_problem.max()))


def estimate(samples: WeightedSamples, alpha: float, tilt: float, ks: tuple[int, ...] = ()) -> Estimate:
    """Figures of p^alpha exp(tilt r) / Z; tilt is 1 / beta, and 0 for no reward.

    KL is to p, in nats: E[(alpha - 1) log p + tilt r] - log Z, where Z is taken relative to the mass of p on complete
    responses.
    """
    sums = _Sums(samples, alpha, tilt, ks)
    plain, corrected = sums.jackknife(sums.counted)
    halves = (sums.jackknife(sums.odd)[1] + sums.jackknife(sums.counted & ~sums.odd)[1]) / 2
    share = sums.parts[..., 0] / sums.parts[..., 0].sum(1, keepdims=True)
    return Estimate(
        plain=plain[:, 1:],
        corrected=corrected[:, 1:],
        halves=halves[:, 1:],
        ess=1 / (share**2).sum(1),
        load=corrected[:, 0] / sums.counted.sum(1),
        top=share.max(1),
        samples_per_problem=(sums.parts[..., 1] > 0).sum(1).astype(float),
    )


def enough(samples: WeightedSamples) -> NDArray[np.bool_]:
    """Which problems have what the jackknife of two halves needs: two units that weigh something in each half, and two
    units of each proposal, [P]."""
    sums = _Sums(samples, 1.0, 0.0, ())
    weighs = sums.parts[..., 1] > 0
    fine = np.ones(len(weighs), dtype=bool)
    for half in (sums.odd, sums.counted & ~sums.odd):
        fine &= (weighs & half).sum(1) >= 2
        for k in range(sums.share.shape[1]):
            fine &= ((half & (sums.proposal == k)).sum(1) >= 2) | (sums.share[:, k] == 0)
    return fine


class _Sums:
    """What every figure is made of, by unit: parts [P, U, C] with columns w, p / q, w correct, w length,
    w ((alpha - 1) log p + tilt r), and w^2.

    odd: every second unit of each proposal, [P, U]. share: of each proposal among the units, [P, K].
    """

    def __init__(self, samples: WeightedSamples, alpha: float, tilt: float, ks: tuple[int, ...]) -> None:
        used = samples.used
        gain = (alpha - 1) * samples.logp + (tilt * samples.reward if tilt else 0.0)
        ratio = samples.logp - samples.log_q
        weight, weight_shift = _scaled(gain + ratio, used)
        base, base_shift = _scaled(ratio, used)
        self.shift = base_shift - weight_shift
        columns = (samples.correct, samples.length, gain)
        parts = np.stack([weight, base, *(weight * np.where(used, column, 0.0) for column in columns)], -1)
        parts, self.proposal, self.counted = _by_unit(parts, samples)
        self.parts = np.concatenate([parts, parts[..., :1] ** 2], -1)
        which = [self.counted & (self.proposal == k) for k in range(int(self.proposal.max()) + 1)]
        self.odd = np.any([mine & (mine.cumsum(1) % 2 == 1) for mine in which], axis=0)
        sizes = np.stack([mine.sum(1) for mine in which], 1)
        self.share = sizes / np.maximum(sizes.sum(1, keepdims=True), 1)
        self.ks = ks

    def figures(self, total: Floats) -> Floats:
        """total [P, ..., C] -> [P, ..., 1 + F], E[w^2] / E[w]^2 before the figures."""
        weight, base, correct, length, gain, square = np.moveaxis(total, -1, 0)
        shift = self.shift.reshape(-1, *(1,) * (weight.ndim - 1))
        accuracy = correct / weight
        kl = gain / weight - np.log(weight) + np.log(base) + shift
        load = square / weight**2
        return np.stack([load, accuracy, length / weight, kl, *(1 - (1 - accuracy) ** k for k in self.ks)], -1)

    def jackknife(self, among: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """The figures from the units in `among` [P, U], plain and corrected, each [P, F].

        With several proposals, each is left one short in turn (the stratified jackknife): how many samples each gave is
        no accident.
        """
        total = np.zeros((len(self.parts), self.parts.shape[-1]))
        strata = []
        for k in range(self.share.shape[1]):
            mine = among & (self.proposal == k)
            size = np.maximum(mine.sum(1), 2)[:, None]
            mean = np.where(mine[..., None], self.parts, 0.0).sum(1) / size
            share = self.share[:, k, None]
            total += share * mean
            strata.append((mine, size, mean, share))
        plain = self.figures(total)
        corrected = plain.copy()
        for mine, size, mean, share in strata:
            change = np.where(mine[..., None], (mean[:, None] - self.parts) / (size - 1)[..., None], 0.0)
            moved = self.figures(total[:, None] + share[..., None] * change) - plain[:, None]
            corrected -= moved.sum(1) * (size - 1) / size
        return plain, corrected


def _scaled(log_weight: Floats, used: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Weights over the largest of each row, and the log of that, [P]; zero where not used."""
    known = np.where(used, log_weight, -np.inf)
    top = known.max(1, keepdims=True)
    top = np.where(top > -np.inf, top, 0.0)  # a problem without any sample to use weighs nothing
    return np.where(used, np.exp(np.maximum(known - top, -FLOOR)), 0.0), top[:, 0]


def _by_unit(parts: Floats, samples: WeightedSamples) -> tuple[Floats, NDArray[np.intp], NDArray[np.bool_]]:
    """Sums over the samples of each unit [P, U, C], its proposal [P, U], and whether there is such a unit [P, U]."""
    shape = (len(parts), int(samples.unit.max()) + 1)
    row = np.broadcast_to(np.arange(len(parts))[:, None], samples.unit.shape)[samples.counted]
    unit = samples.unit[samples.counted]
    sums, proposal, there = np.zeros((*shape, parts.shape[-1])), np.zeros(shape, dtype=np.intp), np.zeros(shape, bool)
    np.add.at(sums, (row, unit), parts[samples.counted])
    proposal[row, unit] = samples.proposal[samples.counted]
    there[row, unit] = True
    return sums, proposal, there
