"""What the best of several candidates adds, chosen on one half of the problems and scored on the other, and intervals
that resample problems. Pure.

Left out on purpose: what the candidates are (candidates.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import ndtr, stdtrit

from tiltlab.forecast.weighted_samples import Floats, Ints
from tiltlab.stats.metrics import Interval
from tiltlab.verdict.form import Conditional

RESAMPLES = 1000


@dataclass(frozen=True)
class Resamples:
    """How often each problem counts, [R, P]: first once each, then as problems of each half are drawn anew.

    one_RP, other_RP: in either half; 0 for problems of the other.
    """

    one_RP: Floats
    other_RP: Floats

    @property
    def both_RP(self) -> Floats:
        return self.one_RP + self.other_RP

    def mean(self, values_P: Floats) -> Floats:
        """Over problems, [R]."""
        means: Floats = self.both_RP @ values_P / values_P.shape[0]
        return means

    def interval(self, values_R: Floats) -> Interval:
        """95 %: percentiles, as far out as makes up for a bootstrap's variance being short by a problem in each half
        and for its tails being normal (the expanded percentile interval; Hesterberg 2015)."""
        half = self.one_RP.shape[1] // 2
        narrow = float(ndtr(stdtrit(max(2 * half - 2, 1), 0.025) * sqrt(half / max(half - 1, 1))))
        low, high = np.quantile(values_R[1:], [narrow, 1 - narrow])
        return Interval(float(values_R[0]), float(low), float(high))


def resamples(problems: int, seed: int) -> Resamples:
    """Halves are drawn by the seed; two problems at least."""
    generator = np.random.default_rng(seed)
    halves = np.array_split(generator.permutation(problems), 2)
    drawn = []
    for half in halves:
        count_RP = np.zeros((1 + RESAMPLES, problems))
        count_RP[0, half] = 1
        count_RP[1:, half] = generator.multinomial(len(half), np.full(len(half), 1 / len(half)), RESAMPLES)
        drawn.append(count_RP)
    return Resamples(*drawn)


class Added:
    """What candidates add to the sum over the problems of either half, and how sure that is, each [A, R].

    uplift_AP: of each candidate, by problem, the first of them 0; NaN where it is not known, as `gaps` fills it.
    scale_P: share of the problem's responses that it applies to.
    """

    def __init__(self, uplift_AP: Sequence[Floats], scale_P: Floats, gaps: Conditional, drawn: Resamples) -> None:
        self.problems = len(scale_P)
        halves = (drawn.one_RP, drawn.other_RP)
        self.sums = [np.stack([gaps.sums(count, scale_P, uplift_P) for uplift_P in uplift_AP]) for count in halves]
        self.errors = [np.stack([_error(count, scale_P * uplift_P) for uplift_P in uplift_AP]) for count in halves]

    def best(self, caution: float) -> tuple[Floats, tuple[int, ...]]:
        """What the best one adds to the mean over problems, [R], and which ones the halves choose.

        caution: standard errors by which a candidate counts for less than it seems. The first is taken where the one so
            chosen adds nothing.
        """
        chosen = [_choice(*half, caution) for half in zip(self.sums, self.errors, strict=True)]
        row = np.arange(len(chosen[0]))
        (one_AR, other_AR), (by_one_R, by_other_R) = self.sums, chosen
        added_R: Floats = (one_AR[by_other_R, row] + other_AR[by_one_R, row]) / self.problems
        return added_R, tuple(sorted({int(chosen_R[0]) for chosen_R in chosen}))


def _choice(sums_AR: Floats, errors_AR: Floats, caution: float) -> Ints:
    if len(sums_AR) == 1:
        return np.zeros(sums_AR.shape[1], dtype=np.intp)
    row = np.arange(sums_AR.shape[1])
    surest_R = 1 + (sums_AR - caution * errors_AR)[1:].argmax(0)
    choice: Ints = np.where(sums_AR[surest_R, row] > sums_AR[0], surest_R, 0)
    return choice


def _error(count_RP: Floats, values_P: Floats) -> Floats:
    """Standard error of a sum over problems, [R]; where a value is not known, it is taken to be like the others."""
    known_P = ~np.isnan(values_P)
    kept_P = np.where(known_P, values_P, 0.0)
    size_R, all_R = np.maximum(count_RP @ known_P, 1), count_RP.sum(1)
    mean_R = count_RP @ kept_P / size_R
    variance_R = np.maximum(count_RP @ kept_P**2 / size_R - mean_R**2, 0)
    error: Floats = all_R * np.sqrt(variance_R / size_R)
    return error
