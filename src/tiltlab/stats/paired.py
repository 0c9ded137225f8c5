"""Two runs on the same problems: what one solves that the other does not, and whether that can be chance. Pure.

Left out on purpose: comparisons of runs on different problems, which say more about the problems.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from tiltlab.stats.by_problem import accuracy, by_task_and_problem, graded
from tiltlab.stats.metrics import Interval, mean_interval, share_interval
from tiltlab.stats.votes import Floats
from tiltlab.types import UNKNOWN, Record

RESAMPLES = 4999


@dataclass(frozen=True)
class Comparison:
    """b beside a, over the problems that both have graded responses to. Intervals are over problems, 95 %.

    problems: how many both have.
    a, b: accuracy.
    difference: accuracy of b less that of a, problem by problem.
    a_only, b_only: problems whose majority answer only that run has right.
    mcnemar: the exact two-sided p-value that these two differ by chance.
    unmatched: problems that one of the two lacks.
    ungraded: responses left out since nobody knows their grade.
    """

    problems: int
    a: Interval
    b: Interval
    difference: Interval
    a_only: int
    b_only: int
    mcnemar: float
    unmatched: int
    ungraded: int


def compare(a: Sequence[Record], b: Sequence[Record], seed: int = 0) -> Comparison:
    """Compare two runs problem by problem.

    a, b: their records. Problems are matched by task and id; each counts once, however many samples it has.
    seed: of the bootstrap.

    Raises ValueError where the two have no problem in common.
    """
    of_a, of_b = by_task_and_problem(graded(a)), by_task_and_problem(graded(b))
    both = [key for key in of_a if key in of_b]
    if not both:
        raise ValueError("the two runs have no graded problem in common")
    accuracy_a, accuracy_b = (np.array([accuracy(of[key]) for key in both]) for of in (of_a, of_b))
    right_a, right_b = (np.array([_majority_right(of[key]) for key in both]) for of in (of_a, of_b))
    a_only, b_only = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        problems=len(both),
        a=share_interval(accuracy_a),
        b=share_interval(accuracy_b),
        difference=difference_interval(accuracy_b - accuracy_a, seed),
        a_only=a_only,
        b_only=b_only,
        mcnemar=mcnemar(a_only, b_only),
        unmatched=len(of_a.keys() ^ of_b.keys()),
        ungraded=sum(record.reason in UNKNOWN for record in (*a, *b)),
    )


def difference_interval(
    differences_P: Floats, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Mean of one difference a problem, with an interval that resamples problems.

    differences_P: float [P], each in [-1, 1], at least one.
    seed: of the bootstrap.
    level: chance that the interval holds the mean.
    resamples: of the bootstrap.

    The bootstrap is bias-corrected and accelerated (Efron 1987). Of fewer than 50 problems, or fewer than 10 that
    differ, Student's interval is taken where that is wider; where none differs, the interval is what the rule of three
    leaves open.
    """
    count = len(differences_P)
    plain = mean_interval(differences_P, level)
    differing = int((differences_P != 0).sum())
    if differing == 0:
        open_ = never_limit(count, level)
        return Interval(0.0, -open_, open_)
    if count < 2 or differences_P.std() == 0:
        return plain
    from scipy import stats  # half a second to import, which most commands can do without

    resampled = stats.bootstrap(
        (differences_P,), np.mean, n_resamples=resamples, confidence_level=level, rng=np.random.default_rng(seed)
    ).confidence_interval
    low, high = float(resampled.low), float(resampled.high)
    if count < 50 or differing < 10 or not np.isfinite([low, high]).all():
        low, high = np.nanmin([low, plain.low]), np.nanmax([high, plain.high])
    return Interval(plain.value, float(low), float(high))


def mcnemar(a_only: int, b_only: int) -> float:
    """Exact two-sided p-value that discordant pairs fall to either side with probability one half (McNemar 1947).

    a_only, b_only: pairs that fall to each side.
    """
    if a_only + b_only == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(a_only, b_only), a_only + b_only, 0.5)))


def never_limit(n: int, level: float = 0.95) -> float:
    """The largest probability that n failures out of n leave open at this level: 1 - (1 - level)^(1/n), about 3 / n
    (the rule of three; Clopper and Pearson 1934)."""
    if n < 1:
        return 1.0
    return float(1 - (1 - level) ** (1 / n))


@dataclass(frozen=True)
class Stratum:
    """Responses of one span of lengths.

    shortest, longest: in tokens, both ends included.
    responses: how many.
    accuracy: of theirs.
    """

    shortest: int
    longest: int
    responses: int
    accuracy: Interval


def by_length(records: Sequence[Record], strata: int = 4) -> list[Stratum]:
    """Accuracy by length of response. Intervals are over problems; ungraded responses are left out.

    strata: how many, of about equally many responses; fewer where many lengths are equal, as those stay together.
    """
    known = graded(records)
    if not known:
        return []
    edges = np.unique(np.quantile([r.tokens for r in known], np.linspace(0, 1, strata + 1)[1:-1], method="lower"))
    where = np.searchsorted(edges, [record.tokens for record in known])
    told = []
    for stratum in np.unique(where):
        group = [record for record, place in zip(known, where, strict=True) if place == stratum]
        lengths = [record.tokens for record in group]
        accuracies = [accuracy(samples) for samples in by_task_and_problem(group).values()]
        told.append(Stratum(min(lengths), max(lengths), len(group), share_interval(accuracies)))
    return told


def _majority_right(samples: Sequence[Record]) -> bool:
    """Whether the majority answer of all samples is more likely right than not, ties shared."""
    votes = Counter(record.answer for record in samples if record.answer is not None)
    right = {record.answer for record in samples if record.reason == "correct"}
    tied = [answer in right for answer, count in votes.items() if count == max(votes.values())]
    return sum(tied) > len(tied) / 2
