"""What n graded samples a problem say: pass@k, maj@k, and intervals over problems. Pure, numpy only.

Left out on purpose: anything that resamples the samples of a problem. The samples are exchangeable, so their part is
done exactly; what an interval must account for is which problems there happened to be.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb, isnan, sqrt

import numpy as np
from scipy.special import stdtrit

from tiltlab.stats.votes import Floats, vote_chances
from tiltlab.types import UNKNOWN, Record


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a correct one.

    n: samples of a problem.
    correct: how many of them are right.
    k: how many are drawn.

    Unbiased (Chen et al. 2021, arXiv 2107.03374). NaN for k > n: n samples say nothing unbiased about more.
    """
    if k > n:
        return float("nan")
    return 1 - comb(n - correct, k) / comb(n, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Chance that the most frequent answer among k of the n samples, drawn without replacement, is right. Exact, to
    rounding.

    answers: of the n samples of a problem.
    correct: whether each of them is right.
    k: how many samples vote.

    Samples without an answer (None) cast no vote; where nobody votes, the outcome is wrong. Ties go to the answer seen
    first, and since samples are exchangeable every tied answer is as likely to be the first. NaN for k > n.
    """
    return majorities([(answers, correct)], k)[0]


def majorities(problems: Sequence[tuple[Sequence[str | None], Sequence[bool]]], k: int) -> list[float]:
    """maj_at_k of many problems, [P], each its answers and whether they are right: far faster than one by one."""
    values = [float("nan")] * len(problems)
    able = [p for p, (answers, _) in enumerate(problems) if k <= len(answers)]
    if not able:
        return values
    votes = [Counter(answer for answer in problems[p][0] if answer is not None) for p in able]
    count_PA = np.zeros((len(able), max(1, *(len(of) for of in votes))), dtype=np.intp)
    for row, of in zip(count_PA, votes, strict=True):
        row[: len(of)] = list(of.values())
    unanswered_P = np.array([len(problems[p][0]) - of.total() for p, of in zip(able, votes, strict=True)])
    for p, of, chance_A in zip(able, votes, vote_chances(count_PA, unanswered_P, k), strict=True):
        right = {answer for answer, is_right in zip(*problems[p], strict=True) if is_right}
        values[p] = float(sum(chance for answer, chance in zip(of, chance_A, strict=False) if answer in right))
    return values


def answer_entropy(answers: Iterable[str | None]) -> float:
    """Entropy of the answers to one problem, in nats: 0 where all are the same. None, no answer, is left out."""
    votes = Counter(answer for answer in answers if answer is not None)
    share = np.array(list(votes.values()), dtype=float) / max(1, votes.total())
    return float(-(share * np.log(share)).sum())


def averages(records: Sequence[Record], *, truncated: bool = False) -> dict[str, float]:
    """Plain means over responses, for curves; at least one response.

    truncated: whether truncated responses count as responses like any other, as with `train.truncated: keep`.

    Returns, by name:
    accuracy: over those that could be graded.
    reward: over those that have one.
    length: in tokens, over all.
    truncated: share of all.
    logp, ref_logp: in nats a response, over complete ones, or over all with `truncated`.
    kl: mean of logp - ref_logp, over the same.
    """
    complete = [r for r in records if r.complete]
    whole = records if truncated else complete
    return {
        "accuracy": _mean([float(r.reason == "correct") for r in records if r.reason not in UNKNOWN]),
        "reward": _mean([r.reward for r in records if not isnan(r.reward)]),
        "length": _mean([float(r.tokens) for r in records]),
        "truncated": 1 - len(complete) / len(records),
        "logp": _mean([r.logp for r in whole]),
        "ref_logp": _mean([r.ref_logp for r in whole]),
        "kl": _mean([r.logp - r.ref_logp for r in whole]),
    }


@dataclass(frozen=True)
class Interval:
    """An estimate and its two-sided confidence interval.

    value: the estimate.
    low, high: the ends; NaN where there is too little to say.
    """

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float] | Floats, level: float = 0.95) -> Interval:
    """Mean of one value a problem, with Student's t interval over problems.

    values: NaN ones are left out.
    level: chance that the interval holds the mean.
    """
    known = _known(values)
    if len(known) < 2:
        return Interval(float(known.mean()) if len(known) else float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    half = float(stdtrit(len(known) - 1, 0.5 + level / 2) * known.std(ddof=1) / np.sqrt(len(known)))
    return Interval(mean, mean - half, mean + half)


def share_interval(values: Sequence[float] | Floats, level: float = 0.95) -> Interval:
    """Mean of one share in [0, 1] a problem, with an interval that stays in [0, 1].

    values: NaN ones are left out.
    level: chance that the interval holds the mean.

    Wilson's score interval at the effective sample size p (1 - p) / var(mean) of the clustered samples (the
    design-effect correction of survey statistics), which is at least the number of problems. It is at most that number
    times how many problems, in effect, tell of the spread: with d the distances to the nearer end of [0, 1], (sum d)^2
    / sum d^2, and 1 where all values are 0 or all are 1. So nothing is ever called certain, and a spread that two
    problems tell of is not taken for known.
    """
    known = _known(values)
    if len(known) < 2:
        return mean_interval(values, level)
    p, variance = float(known.mean()), float(known.var(ddof=1)) / len(known)
    size = float(len(known))
    if variance > 0:
        distance = known if p < 0.5 else 1 - known
        telling = float(distance.sum() ** 2 / (distance**2).sum())
        size = max(size, min(p * (1 - p) / variance, size * max(1.0, telling)))
    return wilson(p, size, len(known), level)


def wilson(share: float, size: float, problems: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) for a share in [0, 1].

    share: the estimate.
    size: it is as well known as from so many draws of yes or no.
    problems: how many it is over, two or more; Student's quantile for them stands in place of the normal one.
    level: chance that the interval holds the share.
    """
    t = float(stdtrit(problems - 1, 0.5 + level / 2))
    centre = (share + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * sqrt(share * (1 - share) / size + t * t / (4 * size * size))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _known(values: Sequence[float] | Floats) -> Floats:
    known: Floats = np.asarray(values, dtype=float)
    return known[~np.isnan(known)]
