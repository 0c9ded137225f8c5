"""How far sharpening was followed beside what the tuned model did: in likelihood, and in how concentrated its answers
are. Pure.

What lies beyond the end of a path nobody has seen: there is no "beyond sharpening" for a tuned model that went further.

Left out on purpose: what sharpening has where it was followed (candidates.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, sqrt
from typing import Any

import numpy as np
from scipy.special import softmax

from tiltlab.forecast.answers import agreement
from tiltlab.forecast.ranks import Match, matched
from tiltlab.forecast.weighted_samples import Floats, WeightedSamples
from tiltlab.stats.by_problem import by_problem
from tiltlab.stats.metrics import Interval
from tiltlab.types import Record
from tiltlab.verdict.base_path import BasePath
from tiltlab.verdict.form import formed


@dataclass(frozen=True)
class Followed:
    """One way to sharpen the base, followed as far as its samples carry.

    reached: whether the base, so sharpened, gets as far as the tuned model did. end, tuned: how far it, and the tuned
        model, get: mean log p of a response under the base, in nats; or the chance that two responses agree, in [0, 1].
    at: what the end of the path is.
    matched: accuracy of the base's responses as likely as the tuned model's; None for answers, and where not reached.
    matched_k: these are the likeliest of so many.
    needed: where not reached, a guess of how many samples a problem would; None where nobody can guess.
    """

    reached: bool
    end: float
    tuned: float
    at: str
    matched: Interval | None = None
    matched_k: float | None = None
    needed: int | None = None


def as_likely(path: BasePath, tuned: Sequence[Record]) -> Match | None:
    """The likeliest of k that are as likely as the tuned model's responses, or the end of the path before it; None
    where there is no path, or no two problems are in both."""
    return matched(path.ranks, _logp(tuned, np.mean)) if path.ranks else None


def in_likelihood(
    path: BasePath, tuned: Sequence[Record], powers: Mapping[str, Sequence[Record]], match: Match | None
) -> Followed | None:
    """By the likeliest of k, by p^alpha, and by samples of a p^alpha; None where no two problems are in both, or nobody
    knows how likely responses are."""
    if path.samples is None:
        return None
    own = _logp(tuned, np.mean)
    ends = {f"p^{path.reach:g}": _on_power(path.samples, path.reach)} | {
        name: _logp(records, np.median) for name, records in powers.items()
    }
    reached = any(_covers(logp, tuned) for logp in ends.values())
    if path.ranks:
        last = dict(zip(path.ranks.problems, path.ranks.logp_KP[-1].tolist(), strict=True))
        ends[f"the likeliest of {path.ranks.ks[-1]}"] = last
    furthest = _furthest(ends, own)
    if furthest is None:
        return None
    return Followed(
        reached or (match is not None and match.reached),
        *furthest,
        matched=match.accuracy if match and match.reached else None,
        matched_k=match.k if match and match.reached else None,
        needed=int(match.needed) if match and match.needed and isfinite(match.needed) else None,
    )


def in_answers(path: BasePath, tuned: Sequence[Record], voted: Mapping[str, Sequence[Record]]) -> Followed | None:
    """By votes, answer power, and samples of either; None where there is nothing to vote on."""
    if path.votes is None or path.answers is None:
        return None
    ends: dict[str, Mapping[str, float]] = {name: agreement(formed(records)) for name, records in voted.items()}
    for k, agreement_P in zip(path.votes.ks, path.votes.agreement_KP, strict=True):
        ends[f"the vote of {k}"] = dict(zip(path.votes.problems, agreement_P.tolist(), strict=True))
    for g, agreement_P in zip(path.answers.gs, path.answers.agreement_GP, strict=True):
        if g <= path.answer_reach:
            ends[f"answer power {g:g}"] = dict(zip(path.answers.problems, agreement_P.tolist(), strict=True))
    own = agreement(formed(tuned))
    furthest = _furthest(ends, own)
    if furthest is None:
        return None
    lead = _leads(ends[furthest[2]], own)
    reached = lead.mean() >= -2 * lead.std(ddof=1) / sqrt(len(lead)) - 1e-9
    return Followed(bool(reached), *furthest)


def _furthest(ends: Mapping[str, Mapping[str, float]], own: Mapping[str, float]) -> tuple[float, float, str] | None:
    """How far the furthest end gets, how far the tuned model, and which end that is."""
    leads = {name: _leads(end, own) for name, end in ends.items()}
    known = {name: float(lead.mean()) for name, lead in leads.items() if len(lead) >= 2}
    if not known:
        return None
    name = max(known, key=lambda name: known[name])
    its = float(np.mean([own[problem] for problem in _common(ends[name], own)]))
    return its + known[name], its, name


def _leads(end: Mapping[str, float], own: Mapping[str, float]) -> Floats:
    """By how much an end leads, by problem."""
    return np.array([end[problem] - own[problem] for problem in _common(end, own)])


def _common(end: Mapping[str, float], own: Mapping[str, float]) -> list[str]:
    return [name for name, value in end.items() if isfinite(value) and isfinite(own.get(name, np.nan))]


def _on_power(samples: WeightedSamples, reach: float) -> dict[str, float]:
    """E[log p] by problem under the last p^alpha that is supported. It rises with alpha: its slope is the variance of
    log p."""
    weight_PN = softmax(np.where(samples.used, reach * samples.logp - samples.log_q, -np.inf), axis=1)
    return dict(zip(samples.problems, (weight_PN * samples.logp).sum(1).tolist(), strict=True))


def _covers(logp: Mapping[str, float], tuned: Sequence[Record]) -> bool:
    """Whether log p has reached that of the tuned responses, problem by problem: in the mean, within two standard
    errors, and on half of the problems (a few absurd responses move a mean)."""
    lead = _leads(logp, _logp(tuned, np.median))
    if len(lead) < 2:
        return False
    return bool(lead.mean() > -2 * lead.std(ddof=1) / np.sqrt(len(lead)) and (lead > -0.01).mean() >= 0.5)


def _logp(records: Sequence[Record], average: Callable[[Sequence[float]], Any]) -> dict[str, float]:
    """Mean or median log p of responses with form by problem, of those whose log p is known."""
    groups = by_problem(record for record in formed(records) if not isnan(record.ref_logp))
    return {name: float(average([record.ref_logp for record in group])) for name, group in groups.items()}
