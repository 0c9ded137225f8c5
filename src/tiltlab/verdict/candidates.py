"""What sharpens a base without a label, each way with its accuracy by problem: a gain must go beyond the best. Pure.

Left out on purpose: which of them is best (held_out.py), and how far they go (followed.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tiltlab.forecast.ranks import Match
from tiltlab.forecast.weighted_samples import Floats, Ints
from tiltlab.stats.by_problem import accuracy, by_problem
from tiltlab.types import Record
from tiltlab.verdict.base_path import BasePath
from tiltlab.verdict.form import formed

Family = Literal["likelihood", "answers"]

BOTH: tuple[Family, ...] = get_args(Family)

NONE = "alpha 1, none"
"""Not to sharpen: always a choice, of either family."""

UNKNOWN = 0.5
"""Share of problems on which a candidate may be unknown, and is taken to add what it adds to problems alike."""


@dataclass(frozen=True)
class Candidate:
    """One way to sharpen. families: whose it is; of both, where it needs both.

    accuracy_P: of responses with form, by problem; NaN where it is not known.
    """

    name: str
    families: tuple[Family, ...]
    accuracy_P: Floats


_Row = tuple[str, tuple[Family, ...], Sequence[str], Floats]


def candidates(
    path: BasePath,
    problems: Sequence[str],
    base_P: Floats,
    by_likelihood: Mapping[str, Sequence[Record]],
    by_answers: Mapping[str, Sequence[Record]],
) -> list[Candidate]:
    """All that are supported, the base as it is first.

    base_P: its accuracy, by problem. by_likelihood, by_answers: samples drawn from the base, by name.
    """
    known = [
        Candidate(name, families, _at(problems, of, accuracy_P))
        for name, families, of, accuracy_P in (*_likelier(path), *_commoner(path))
    ]
    drawn: tuple[tuple[Family, Mapping[str, Sequence[Record]]], ...] = (
        ("likelihood", by_likelihood),
        ("answers", by_answers),
    )
    known += [
        Candidate(name, (family,), _accuracies(records, problems))
        for family, samples in drawn
        for name, records in samples.items()
    ]
    none = Candidate(NONE, BOTH, base_P)
    return [none, *(one for one in known if np.isnan(one.accuracy_P).mean() <= UNKNOWN)]


def as_likely(path: BasePath, problems: Sequence[str], match: Match | None) -> Candidate | None:
    """The base's responses that are as likely as the tuned model's; None where they are out of reach."""
    if path.ranks is None or match is None or not match.reached:
        return None
    name = f"best of {match.k:.3g} by log p, as likely as the tuned model"
    return Candidate(name, ("likelihood",), _at(problems, path.ranks.problems, match.accuracy_P))


def vote_limit(path: BasePath, problems: Sequence[str]) -> Candidate | None:
    """What no number of votes can exceed; None where nobody knows."""
    if path.votes is None or path.vote_limit is None:
        return None
    return Candidate("the most that voting can have", ("answers",), _at(problems, path.votes.problems, path.vote_limit))


def _likelier(path: BasePath) -> Iterator[_Row]:
    for alpha, accuracy_P in path.accuracy.items():
        if alpha > 1 and path.samples is not None:
            yield f"alpha {alpha:g}", ("likelihood",), path.samples.problems, accuracy_P
    if ranks := path.ranks:
        for k, accuracy_P in zip(ranks.ks[1:], ranks.accuracy_KP[1:], strict=True):
            yield f"best of {k} by log p", ("likelihood",), ranks.problems, accuracy_P
        if _further(path.all_ranks, ranks.problems, ranks.samples_P):
            yield (
                "the likeliest of all samples",
                ("likelihood",),
                [*path.all_ranks],
                np.array([*path.all_ranks.values()]),
            )


def _further(of_all: Mapping[str, float], problems: Sequence[str], samples_P: Ints) -> bool:
    """Whether all samples of some problem are more than what the paths end at."""
    return len(of_all) > len(problems) or int(samples_P.max()) > int(samples_P.min())


def _commoner(path: BasePath) -> Iterator[_Row]:
    if answers := path.answers:
        for g, accuracy_P in zip(answers.gs, answers.accuracy_GP, strict=True):
            if 1 < g <= path.answer_reach:
                yield f"answer power {g:g}", ("answers",), answers.problems, accuracy_P
        if path.ranks and _further(path.all_votes, path.ranks.problems, path.ranks.samples_P):
            yield "the vote of all samples", ("answers",), [*path.all_votes], np.array([*path.all_votes.values()])
    for votes, among, families in ((path.votes, "", BOTH[1:]), (path.likelier_votes, " among the likelier half", BOTH)):
        if votes:
            for k, accuracy_P in zip(votes.ks, votes.accuracy_KP, strict=True):
                if k > 2:  # two votes are no more than one
                    yield f"vote of {k}{among}", families, votes.problems, accuracy_P


def _at(problems: Sequence[str], of: Sequence[str], values_P: Floats) -> Floats:
    """Values of some problems in the order of others; NaN where there is none."""
    values = dict(zip(of, values_P.tolist(), strict=True))
    return np.array([values.get(problem, np.nan) for problem in problems])


def _accuracies(records: Sequence[Record], problems: Sequence[str]) -> Floats:
    groups = by_problem(formed(records))
    return np.array([accuracy(groups.get(name, ())) for name in problems])
