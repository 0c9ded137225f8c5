"""How far samples of a base carry along the ways to sharpen it: by its likelihood, and by its answers. Pure.

All of it is of the base given that it ends and answers: what form adds is told apart (form.py).

Left out on purpose: a way that the samples do not support. There is no number then, and the verdict says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np

from tiltlab.errors import UserError
from tiltlab.forecast.answers import Votes, votes_of
from tiltlab.forecast.forecast import forecast
from tiltlab.forecast.importance import enough, estimate
from tiltlab.forecast.lines import answer_line
from tiltlab.forecast.ranks import DIGITS, RankPath, rank_path
from tiltlab.forecast.reliability import MIN_PROBLEMS
from tiltlab.forecast.voting import AnswerPath, VotePath, answer_path, vote_path
from tiltlab.forecast.weighted_samples import FEWEST, Floats, WeightedSamples, from_records, some_problems
from tiltlab.stats.by_problem import by_problem
from tiltlab.types import UNKNOWN, Record
from tiltlab.verdict.form import formed, has_form, others_unused

ALPHAS = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)

SPARED = 0.1
"""Share of problems, those with the fewest samples, that do not end the paths of the others: of what each problem can
tell k of, so much is taken to be like the rest."""

CHANCE = 2.0
"""Standard errors by which an answer must be behind another to be the rarer one."""


@dataclass(frozen=True)
class BasePath:
    """What samples of a base tell of its sharpening.

    samples: those that p^alpha is told from, of the problems with enough of them; None where nobody knows how likely
        the base's responses are: then its answers alone can be sharpened.
    accuracy: of p^alpha by problem of `samples`, [P], by every alpha >= 1 that is supported, in order; estimates may
        leave [0, 1].
    ranks: the likeliest of k. answers: answer power. votes: the vote of k. likelier_votes: the vote of k among the
        likelier half of the samples. None where there are too few samples or problems, or nothing to vote on.
    all_ranks, all_votes: accuracy by problem of the likeliest of all its samples, and of the vote of them all: where
        problems differ in how many they have, these go further than the paths.
    answer_reach: the largest answer power that is supported; 1, the base itself, where none is.
    vote_limit: accuracy by problem of `votes`, [P], that no number of votes can exceed: 1 where the right answer may be
        the most frequent, as far as the samples tell.
    """

    samples: WeightedSamples | None
    accuracy: dict[float, Floats]
    ranks: RankPath | None = None
    answers: AnswerPath | None = None
    votes: VotePath | None = None
    likelier_votes: VotePath | None = None
    all_ranks: Mapping[str, float] = field(default_factory=dict)
    all_votes: Mapping[str, float] = field(default_factory=dict)
    answer_reach: float = 1.0
    vote_limit: Floats | None = None

    @property
    def reach(self) -> float:
        """The largest alpha that is supported; 1, the base itself, where none is."""
        return max(self.accuracy, default=1.0)

    @property
    def without_answers(self) -> bool:
        """Whether there is nothing to vote on, though there are samples enough."""
        return self.ranks is not None and self.votes is None


SCORED = 0.9
"""Share of the base's complete responses whose log p must be known, for anything to be told from it: those without are
left out then."""


def base_path(base: Sequence[Record], mixture: WeightedSamples | None = None) -> BasePath:
    """Told from samples of a base. mixture: samples of several models to tell p^alpha from, in place of the base's."""
    scored = _scored(base)
    drawn = from_records(others_unused(scored)) if scored else None
    samples, powers = (None, {}) if drawn is None else _powers(mixture or drawn)
    groups = _with_most_samples(base)
    if len(groups) < MIN_PROBLEMS:
        return BasePath(samples, powers)
    known = drawn and some_problems(drawn, np.array([problem in groups for problem in drawn.problems]))
    ranks, all_ranks = (_ranks(known), _likeliest_of_all(drawn)) if known and drawn else (None, {})
    counts = _votes([record for group in groups.values() for record in group])
    if counts is None:
        return BasePath(samples, powers, ranks, all_ranks=all_ranks)
    answers, votes = answer_path(counts), _voted(counts)
    half = _votes([record for group in groups.values() for record in _likelier_half(group)]) if drawn else None
    return BasePath(
        samples,
        powers,
        ranks,
        answers,
        votes,
        all_ranks=all_ranks,
        all_votes=_vote_of_all(formed(base)),
        likelier_votes=vote_path(half, [_fewest(half)]) if half else None,
        answer_reach=max(point.strength for point in answer_line(answers, _fewest(counts)) if point.supported),
        vote_limit=_limit(counts, votes),
    )


def _scored(base: Sequence[Record]) -> list[Record]:
    """The records, those without log p as if they were truncated; none where too many have none."""
    needed = [record for record in base if has_form(record) and record.reason not in UNKNOWN]
    known = sum(not isnan(record.ref_logp) for record in needed)
    if not known or known < SCORED * len(needed):
        return []
    return [replace(record, complete=False) if isnan(record.ref_logp) else record for record in base]


def _powers(drawn: WeightedSamples) -> tuple[WeightedSamples, dict[float, Floats]]:
    """The samples of the problems with enough of them, and the accuracy of every p^alpha that they support."""
    samples = some_problems(drawn, enough(drawn))
    points = forecast(samples, ALPHAS, ()).points if len(samples.problems) >= 2 else ()
    supported = [point.alpha for point in points if point.supported]
    return samples, {alpha: estimate(samples, alpha, 0.0).corrected[:, 0] for alpha in supported}


def _with_most_samples(base: Sequence[Record]) -> dict[str, list[Record]]:
    """Responses with form of the problems that have the most of them: all but a few."""
    groups = by_problem(formed(base))
    counts = [len(groups.get(problem, ())) for problem in by_problem(base)]
    fewest = max(1, int(np.quantile(counts, SPARED, method="lower")))
    return {problem: group for problem, group in groups.items() if len(group) >= fewest}


def _ranks(samples: WeightedSamples) -> RankPath | None:
    try:
        return rank_path(samples)
    except UserError:  # too few samples
        return None


def _likeliest_of_all(samples: WeightedSamples) -> dict[str, float]:
    """Ties are shared."""
    key_PN = np.where(samples.used, np.round(samples.logp, DIGITS), -np.inf)
    top_PN = samples.used & (key_PN == key_PN.max(1, keepdims=True))
    several = samples.used.sum(1) >= FEWEST
    share_P = (top_PN * samples.correct).sum(1) / np.maximum(top_PN.sum(1), 1)
    return {name: float(s) for name, s, enough in zip(samples.problems, share_P, several, strict=True) if enough}


def _vote_of_all(records: Sequence[Record]) -> dict[str, float]:
    """Ties are shared."""
    votes = _votes(records)
    if votes is None:
        return {}
    top_PA = (votes.count_PA > 0) & (votes.count_PA == votes.count_PA.max(1, keepdims=True))
    share_P = (top_PA * votes.right_PA).sum(1) / np.maximum(top_PA.sum(1), 1)
    return dict(zip(votes.problems, share_P.tolist(), strict=True))


def _votes(records: Sequence[Record]) -> Votes | None:
    try:
        return votes_of(records)
    except UserError:  # no answers, or free text: nothing to vote on; or too few samples
        return None


def _voted(votes: Votes) -> VotePath:
    """At a few numbers of votes, up to all: the half is the most of which two can be compared."""
    n = _fewest(votes)
    return vote_path(votes, [4, 16, n // 2, n])


def _fewest(votes: Votes) -> int:
    return int(votes.samples_P.min())


def _limit(votes: Votes, path: VotePath) -> Floats:
    """1 where the right answer is not behind the most frequent one by CHANCE standard errors; else the most that any
    number of votes has there."""
    right_P = (votes.count_PA * votes.right_PA).max(1)
    top_P = votes.count_PA.max(1)
    may_win_P = top_P - right_P <= CHANCE * np.sqrt(top_P + right_P)
    limit: Floats = np.where(may_win_P, 1.0, path.accuracy_KP.max(0))
    return limit


def _likelier_half(group: Sequence[Record]) -> list[Record]:
    """Of one problem's samples, the half that the base finds likelier."""
    known = [record for record in group if not isnan(record.ref_logp)]
    return sorted(known, key=lambda record: -record.ref_logp)[: (len(group) + 1) // 2]
