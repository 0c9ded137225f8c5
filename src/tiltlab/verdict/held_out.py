"""What the best of several candidates adds, chosen on one half of the problems and scored on the other, and intervals
that resample problems. Pure.

Left out on purpose: what the candidates are (candidates.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import ndtr, stdtrit

from tiltlab.forecast.weighted_samples import Floats
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


def best_added(
    uplift_AP: Sequence[Floats], scale_P: Floats, gaps: Conditional, drawn: Resamples
) -> tuple[Floats, tuple[int, ...]]:
    """What the best candidate adds to the mean over problems, [R], and which ones the halves choose.

    uplift_AP: of each candidate, by problem; NaN where it is not known, as `gaps` fills it.
    scale_P: share of the problem's responses that it applies to.
    """
    one_AR, other_AR = (
        np.stack([gaps.sums(count_RP, scale_P, uplift_P) for uplift_P in uplift_AP])
        for count_RP in (drawn.one_RP, drawn.other_RP)
    )
    by_one_R, by_other_R = one_AR.argmax(0), other_AR.argmax(0)
    row = np.arange(one_AR.shape[1])
    added_R: Floats = (one_AR[by_other_R, row] + other_AR[by_one_R, row]) / len(scale_P)
    return added_R, tuple(sorted({int(by_one_R[0]), int(by_other_R[0])}))
