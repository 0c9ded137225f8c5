"""What became of each problem between two models, and what either model's responses are like. Pure.

Left out on purpose: decisions. The verdict reads these figures, and so may anyone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltlab.stats.by_problem import by_problem, correct, graded
from tiltlab.stats.metrics import Interval, answer_entropy, mean_interval, pass_at_k, share_interval
from tiltlab.stats.paired import never_limit
from tiltlab.types import Record


@dataclass(frozen=True)
class SolvedProblems:
    """Problems by who solves them in any of their samples: both, only the tuned model, only the base, neither.

    A problem "not solved" in n samples may still have an accuracy of up to `base_limit` or `tuned_limit` (95 %, for the
    fewest samples that any problem has). pass_k: pass@k of the base and the tuned model for k = 1, 2, 4, ...; crossing:
    the first such k at which the base's is the larger, None where there is none.
    """

    kept: int
    gained: int
    lost: int
    unsolved: int
    base_limit: float
    tuned_limit: float
    pass_k: dict[int, tuple[Interval, Interval]]
    crossing: int | None


@dataclass(frozen=True)
class Profile:
    """Means over problems: length in tokens, share truncated, distinct answers among n samples, entropy of the answers
    in nats, log p under the base of correct and of wrong complete responses, in nats a response and a token."""

    length: float
    truncated: float
    distinct: float
    entropy: float
    logp_correct: Interval
    logp_wrong: Interval
    logp_token_correct: Interval
    logp_token_wrong: Interval


def solved_problems(base: Sequence[Record], tuned: Sequence[Record]) -> SolvedProblems:
    """Problems that both have graded responses to."""
    of_base, of_tuned = (
        {name: correct(group) for name, group in by_problem(graded(records)).items()} for records in (base, tuned)
    )
    both = [name for name in of_base if name in of_tuned]
    solved = [(any(of_base[name]), any(of_tuned[name])) for name in both]
    count = Counter(solved)
    fewest = [min((len(of[name]) for name in both), default=0) for of in (of_base, of_tuned)]
    ks = [k for k in (2**i for i in range(11)) if k <= min(fewest)]
    pass_k = {
        k: (
            share_interval([pass_at_k(len(of_base[name]), sum(of_base[name]), k) for name in both]),
            share_interval([pass_at_k(len(of_tuned[name]), sum(of_tuned[name]), k) for name in both]),
        )
        for k in ks
    }
    return SolvedProblems(
        kept=count[True, True],
        gained=count[False, True],
        lost=count[True, False],
        unsolved=count[False, False],
        base_limit=never_limit(fewest[0]),
        tuned_limit=never_limit(fewest[1]),
        pass_k=pass_k,
        crossing=next((k for k, (one, other) in pass_k.items() if one.value > other.value), None),
    )


def profile(records: Sequence[Record]) -> Profile:
    groups = by_problem(records)
    answers = [[record.answer for record in group] for group in groups.values()]
    return Profile(
        length=float(np.mean([np.mean([r.tokens for r in group]) for group in groups.values()])),
        truncated=float(np.mean([not record.complete for record in records])),
        distinct=float(np.mean([len(set(given) - {None}) for given in answers])),
        entropy=float(np.mean([answer_entropy(given) for given in answers])),
        logp_correct=_logp(groups, correct=True, per_token=False),
        logp_wrong=_logp(groups, correct=False, per_token=False),
        logp_token_correct=_logp(groups, correct=True, per_token=True),
        logp_token_wrong=_logp(groups, correct=False, per_token=True),
    )


def _logp(groups: dict[str, list[Record]], *, correct: bool, per_token: bool) -> Interval:
    """Over problems that have such responses."""
    values = []
    for group in groups.values():
        chosen = [r for r in group if r.complete and r.reason == ("correct" if correct else "wrong")]
        chosen = [r for r in chosen if r.tokens or not per_token]  # 0: nobody knows its length
        if chosen:
            values.append(float(np.mean([r.ref_logp / (r.tokens if per_token else 1) for r in chosen])))
    return mean_interval(values)
