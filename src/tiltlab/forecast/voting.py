"""Sharpening by answers: answer power, and the vote of k. Told from how often each answer was given; neither a
log-probability nor a label is needed to sharpen so. Pure.

With P(a) the mass that the base puts on an answer, answer power g has the law p(y) P(a(y))^(g - 1) / Z: g = 1 is the
base, a whole g is "g independent samples that all agree", and at large g the most frequent answer is left, in the
base's own wordings. The vote of k returns the first of k samples that has their most frequent answer; TTRL (arXiv
2504.16084) trains towards it. Responses without an answer agree with none and cast no vote.

Left out on purpose: k above the fewest samples of a problem, and answers that no sample gave.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln

from tiltlab.errors import UserError, shown
from tiltlab.forecast.weighted_samples import Floats, Ints
from tiltlab.stats.by_problem import by_problem, graded
from tiltlab.stats.votes import vote_chances
from tiltlab.types import Record

FEWEST = 4
"""Graded samples of a problem: one with fewer is left out, as of any forecast."""

GS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Votes:
    """How often each answer was given, [P, A]; shorter rows are padded with 0.

    problems: the P problems with at least FEWEST graded samples; left_out: how many have fewer.
    count_PA: how many samples gave the answer.
    right_PA: whether it is right.
    length_PA: mean length of the responses that gave it, in tokens.
    silent_P: graded samples without an answer; silent_length_P: their mean length, 0 where there are none.
    samples_P: graded samples.
    half_PA, half_silent_P: count_PA and silent_P of every second sample.
    """

    problems: tuple[str, ...]
    left_out: int
    count_PA: Ints
    right_PA: Floats
    length_PA: Floats
    silent_P: Ints
    silent_length_P: Floats
    samples_P: Ints
    half_PA: Ints
    half_silent_P: Ints


@dataclass(frozen=True)
class AnswerPath:
    """Answer power by g and problem: ratios of unbiased sums. NaN where no g samples of a problem agree.

    problems: P of them. gs: G whole powers, rising; 1, the base as it is, first.
    accuracy_GP: share of right responses, in [0, 1].
    length_GP: in tokens.
    agreement_GP: chance that two responses give the same answer, in [0, 1]; NaN where no 2 g samples agree.
    kl_GP: to the base, in nats.
    groups_GP: how many sets of g samples agree.
    """

    problems: tuple[str, ...]
    gs: tuple[int, ...]
    accuracy_GP: Floats
    length_GP: Floats
    agreement_GP: Floats
    kl_GP: Floats
    groups_GP: Floats


@dataclass(frozen=True)
class VotePath:
    """The vote of k by k and problem; unbiased but for kl_KP.

    problems: P of them. ks: K numbers of votes, rising; 1, the base, first.
    accuracy_KP: chance that the answer voted for is right, in [0, 1].
    length_KP: of the response returned, in tokens.
    agreement_KP: chance that two such votes have the same answer, in [0, 1]; NaN where k is above half of the samples.
    kl_KP: to the base, in nats.
    """

    problems: tuple[str, ...]
    ks: tuple[int, ...]
    accuracy_KP: Floats
    length_KP: Floats
    agreement_KP: Floats
    kl_KP: Floats


def votes_of(records: Sequence[Record]) -> Votes:
    """The answers of a model's own responses; of those alone whose grade is known.

    Raises UserError where no problem has FEWEST graded samples, and, naming the task, where its responses have no
    answers or its answers are free text.
    """
    groups = {name: group for name, group in by_problem(graded(records)).items() if len(group) >= FEWEST}
    if not groups:
        raise UserError(f"forecast: no problem has the {FEWEST} graded samples that it takes")
    _require_answers([record for group in groups.values() for record in group])
    counts = [Counter(r.answer for r in group if r.answer is not None) for group in groups.values()]
    shape = (len(groups), max(len(count) for count in counts))
    count_PA, half_PA, right_PA, length_PA = (np.zeros(shape) for _ in range(4))
    silent_P, half_silent_P, silent_length_P = (np.zeros(len(groups)) for _ in range(3))
    for p, (group, count) in enumerate(zip(groups.values(), counts, strict=True)):
        place = {answer: a for a, answer in enumerate(count)}
        for i, record in enumerate(group):
            if record.answer is None:
                silent_P[p] += 1
                half_silent_P[p] += i % 2
                silent_length_P[p] += record.tokens
            else:
                a = place[record.answer]
                count_PA[p, a] += 1
                half_PA[p, a] += i % 2
                length_PA[p, a] += record.tokens
                right_PA[p, a] = max(right_PA[p, a], record.reason == "correct")
    return Votes(
        problems=tuple(groups),
        left_out=len({record.problem for record in records}) - len(groups),
        count_PA=count_PA.astype(np.intp),
        right_PA=right_PA,
        length_PA=length_PA / np.maximum(count_PA, 1),
        silent_P=silent_P.astype(np.intp),
        silent_length_P=silent_length_P / np.maximum(silent_P, 1),
        samples_P=np.array([len(group) for group in groups.values()], dtype=np.intp),
        half_PA=half_PA.astype(np.intp),
        half_silent_P=half_silent_P.astype(np.intp),
    )


LONGEST = 8
"""Words of letters in an answer: with more it is text, of which no two are ever the same."""


def _require_answers(records: Sequence[Record]) -> None:
    """Raises UserError, naming the task, where there is nothing to vote on."""
    by_task: dict[str, list[str]] = {}
    for record in records:
        by_task.setdefault(record.task, []).extend([record.answer] if record.answer is not None else [])
    for task, answers in by_task.items():
        if not answers:
            raise UserError(
                f"forecast: no response of task {shown(task)} has an answer, so there is nothing to vote on"
            )
        if sum(map(_is_free_text, answers)) > len(answers) / 2:
            raise UserError(
                f"forecast: answers of task {shown(task)} are free text, which has no normal form to vote on; "
                "grade short answers"
            )


def _is_free_text(answer: str) -> bool:
    return "\n" in answer or sum(any(map(str.isalpha, word)) and len(word) > 1 for word in answer.split()) > LONGEST


def answer_path(votes: Votes, gs: Sequence[int] = GS) -> AnswerPath:
    """Raises ValueError for a g that is no whole number of at least 1."""
    if any(g != int(g) or g < 1 for g in gs):
        raise ValueError(f"answer power is told for whole g of at least 1, got {list(gs)}")
    some = sorted({1, *gs})
    rows = [_power(votes, g) for g in some]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return AnswerPath(votes.problems, tuple(some), *columns)


def _power(votes: Votes, g: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Accuracy, length, agreement and KL at one g, and how many sets of g samples agree, each [P].

    C(n_a, g) / C(n, g) is unbiased for P(a)^g, and its slope in g, times psi(n_a - g + 1) - psi(n - g + 1), nearly so
    for P(a)^g log P(a) (Grassberger 1988 at g = 1): no logarithm of a count of few is ever taken.
    """
    chance_PA = _agreeing(votes.count_PA, votes.samples_P, g)
    total_P = chance_PA.sum(1)
    groups_P = total_P * np.exp(_log_choose(votes.samples_P, np.full_like(votes.samples_P, g)))
    if g == 1:  # the base, its responses without an answer included
        silent_P = votes.silent_P / votes.samples_P
        length_P = (chance_PA * votes.length_PA).sum(1) + silent_P * votes.silent_length_P
        agreement_P = _agreeing(votes.count_PA, votes.samples_P, 2).sum(1)
        return (chance_PA * votes.right_PA).sum(1), length_P, agreement_P, np.zeros_like(total_P), groups_P
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy_P, length_P = ((chance_PA * column).sum(1) / total_P for column in (votes.right_PA, votes.length_PA))
        log_PA = digamma(np.maximum(votes.count_PA - g + 1, 1)) - digamma(votes.samples_P - g + 1)[:, None]
        kl_P = (g - 1) * (chance_PA * log_PA).sum(1) / total_P - np.log(total_P)
        pairs_P = _agreeing(votes.count_PA, votes.samples_P, 2 * g).sum(1)
        agreement_P = np.where(pairs_P > 0, pairs_P / total_P**2, np.nan)
    return accuracy_P, length_P, agreement_P, np.where(total_P > 0, kl_P, np.nan), groups_P


def _agreeing(count_PA: Ints, samples_P: Ints, g: int) -> Floats:
    """C(n_a, g) / C(n, g): the chance that g of the samples, drawn without replacement, all give this answer."""
    able = (count_PA >= g) & (samples_P >= g)[:, None]
    log_chance = _log_choose(np.where(able, count_PA, g), g) - _log_choose(np.maximum(samples_P, g), g)[:, None]
    return np.where(able, np.exp(log_chance), 0.0)


def _log_choose(n: Ints, k: Ints | int) -> Floats:
    found: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return found


def vote_path(votes: Votes, ks: Sequence[int] | None = None) -> VotePath:
    """ks: default 1, 2, 4, ... and n, the fewest samples that a problem has; those above n are left out."""
    n = int(votes.samples_P.min())
    some = sorted({1, *(ks if ks is not None else (*(2**i for i in range(n.bit_length())), n))})
    some = [k for k in some if k <= n]
    rows = [_vote(votes, k) for k in some]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return VotePath(votes.problems, tuple(some), *columns)


def _vote(votes: Votes, k: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Accuracy, length, agreement and KL of the vote of k, each [P]."""
    win_PA, none_P = winners(votes.count_PA, votes.silent_P, k)
    length_P = (win_PA * votes.length_PA).sum(1) + none_P * votes.silent_length_P
    with np.errstate(divide="ignore", invalid="ignore"):
        share_PA = votes.count_PA / votes.samples_P[:, None]
        kl_P = np.where(win_PA > 0, win_PA * np.log(win_PA / share_PA), 0.0).sum(1)
        kl_P += np.where(none_P > 0, none_P * np.log(none_P / (votes.silent_P / votes.samples_P)), 0.0)
    return (win_PA * votes.right_PA).sum(1), length_P, _vote_agreement(votes, k), kl_P


def _vote_agreement(votes: Votes, k: int) -> Floats:
    """Chance that the vote of k of one half of the samples has the answer of the vote of k of the other, [P]."""
    halves = (
        (votes.half_PA, votes.half_silent_P),
        (votes.count_PA - votes.half_PA, votes.silent_P - votes.half_silent_P),
    )
    if any((counts.sum(1) + silent < k).any() for counts, silent in halves):
        return np.full(len(votes.problems), np.nan)
    (one_PA, _), (other_PA, _) = (winners(counts, silent, k) for counts, silent in halves)
    agreeing: Floats = (one_PA * other_PA).sum(1)
    return agreeing


def winners(count_PA: Ints, silent_P: Ints, k: int) -> tuple[Floats, Floats]:
    """Chance that each answer wins the vote of k samples drawn without replacement, [P, A]; and that nobody votes."""
    win_PA = vote_chances(count_PA, silent_P, k)
    return win_PA, _agreeing(silent_P[:, None], count_PA.sum(1) + silent_P, k)[:, 0]


def agreement(records: Sequence[Record]) -> Mapping[str, float]:
    """Chance that two graded responses to a problem give the same answer, by problem, unbiased: how concentrated a
    model's answers are. NaN where a problem has fewer than two."""
    found = {}
    for name, group in by_problem(graded(records)).items():
        count, n = Counter(r.answer for r in group if r.answer is not None), len(group)
        found[name] = sum(c * (c - 1) for c in count.values()) / (n * (n - 1)) if n > 1 else float("nan")
    return found
