"""Sharpening by answers: answer power, and the vote of k. Told from how often each answer was given; neither a
log-probability nor a label is needed to sharpen so. Pure.

With P(a) the mass that the base puts on an answer, answer power g is p(y) P(a(y))^(g - 1) / Z: g = 1 is the base, a
whole g is "g independent samples that all agree", and at large g the most frequent answer is left, in the base's own
wordings. The vote of k returns the first of k samples that has their most frequent answer; TTRL (arXiv 2504.16084)
trains towards it. Responses without an answer agree with none and cast no vote.

Left out on purpose: k above the fewest samples of a problem, and answers that no sample gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from scipy.special import gammaln

from tiltlab.forecast.answers import Votes
from tiltlab.forecast.importance import Figures
from tiltlab.forecast.weighted_samples import Floats, Ints
from tiltlab.stats.votes import vote_chances

GS = (1.0, 2.0, 4.0, 8.0)

A_VOTE = 8
"""Samples of a problem for each of the k of a vote that its KL takes: with fewer, what halving the samples corrects is
no longer most of the bias."""


@dataclass(frozen=True)
class AnswerPath:
    """Answer power by g and problem; corrected by the jackknife, so that estimates may leave their range.

    problems: P of them. gs: G powers, rising; 1, the base as it is, first.
    accuracy_GP: share of right responses, in [0, 1].
    length_GP: in tokens.
    kl_GP: to the base, in nats.
    agreement_GP: chance that two responses give the same answer, in [0, 1].
    halves_GP4: accuracy, length, KL and agreement as the mean of two halves of the samples.
    groups_GP: how many answers g samples or more gave.
    """

    problems: tuple[str, ...]
    gs: tuple[float, ...]
    accuracy_GP: Floats
    length_GP: Floats
    kl_GP: Floats
    agreement_GP: Floats
    halves_GP4: Floats
    groups_GP: Floats

    def figures(self, place: int) -> Figures:
        """Of the g in this place."""
        columns = (self.accuracy_GP, self.length_GP, self.kl_GP, self.agreement_GP)
        figures = np.stack([column[place] for column in columns], -1)
        return Figures(figures, figures, self.halves_GP4[place])


@dataclass(frozen=True)
class VotePath:
    """The vote of k by k and problem; unbiased but for the KL.

    problems: P of them. ks: K numbers of votes, rising; 1, the base, first.
    accuracy_KP: chance that the answer voted for is right, in [0, 1].
    length_KP: of the response returned, in tokens.
    kl_KP: to the base, in nats, corrected by halving the samples; NaN where a problem has fewer than A_VOTE samples
        for each of k.
    moved_KP: by how much halving the samples moved the KL.
    agreement_KP: chance that two such votes have the same answer, in [0, 1]; NaN where k is above half of the samples.
    """

    problems: tuple[str, ...]
    ks: tuple[int, ...]
    accuracy_KP: Floats
    length_KP: Floats
    kl_KP: Floats
    moved_KP: Floats
    agreement_KP: Floats


def answer_path(votes: Votes, gs: Sequence[float] = GS) -> AnswerPath:
    """Raises ValueError for a g below 1."""
    if not all(1 <= g < inf for g in gs):
        raise ValueError(f"answer power is told for g of at least 1, got {list(gs)}")
    some = sorted({1.0, *gs})
    whole = np.stack([_jackknife(votes, votes.count_PA, votes.unanswered_P, g) for g in some])
    others = (votes.count_PA - votes.half_PA, votes.unanswered_P - votes.half_unanswered_P)
    halves = [
        np.stack([_jackknife(votes, counts, unanswered, g) for g in some])
        for counts, unanswered in ((votes.half_PA, votes.half_unanswered_P), others)
    ]
    accuracy_GP, length_GP, kl_GP, agreement_GP = np.moveaxis(whole, -1, 0)
    return AnswerPath(
        problems=votes.problems,
        gs=tuple(some),
        accuracy_GP=accuracy_GP,
        length_GP=length_GP,
        kl_GP=kl_GP,
        agreement_GP=agreement_GP,
        halves_GP4=(halves[0] + halves[1]) / 2,
        groups_GP=np.array([(votes.count_PA >= g).sum(1) for g in some], dtype=float),
    )


def _jackknife(votes: Votes, count_PA: Ints, unanswered_P: Ints, g: float) -> Floats:
    """`_power` with its bias of order 1 / n taken away, [P, 4]. Samples with the same answer are as good as each other:
    each answer is left one short in turn, as often as it was given."""
    n_P = count_PA.sum(1) + unanswered_P
    whole = _power(votes, count_PA, unanswered_P, g)
    without = unanswered_P[:, None] * _left_out(votes, count_PA, unanswered_P - 1, unanswered_P, g, whole)
    for a in range(count_PA.shape[1]):
        fewer_PA = count_PA.copy()
        fewer_PA[:, a] -= 1
        without += count_PA[:, a, None] * _left_out(votes, fewer_PA, unanswered_P, count_PA[:, a], g, whole)
    corrected: Floats = n_P[:, None] * whole - ((n_P - 1) / n_P)[:, None] * without
    return corrected


def _left_out(votes: Votes, count_PA: Ints, unanswered_P: Ints, given_P: Ints, g: float, whole: Floats) -> Floats:
    """The figures without a sample; the whole ones where there was none to leave out, or none is left that answers."""
    possible = (given_P > 0) & ((g == 1) | (count_PA.sum(1) > 0))
    fewer = _power(votes, np.maximum(count_PA, 0), np.maximum(unanswered_P, 0), g)
    return np.where(possible[:, None], fewer, whole)


def _power(votes: Votes, count_PA: Ints, unanswered_P: Ints, g: float) -> Floats:
    """Accuracy, length, KL and agreement at one g, as the samples have them, [P, 4]. A problem without any answer is as
    the base."""
    n_P = np.maximum(count_PA.sum(1) + unanswered_P, 1)
    share_PA = count_PA / n_P[:, None]
    nobody = count_PA.sum(1) == 0
    weight_PA = share_PA**g
    total_P = np.where(nobody, 1.0, weight_PA.sum(1))
    chance_PA = weight_PA / total_P[:, None] if g > 1 else share_PA
    unanswered = np.where(nobody | (g == 1), unanswered_P / n_P, 0.0)
    logs_PA = np.log(np.where(count_PA > 0, share_PA, 1.0))
    kl_P = (g - 1) * (chance_PA * logs_PA).sum(1) - np.log(total_P) if g > 1 else np.zeros(len(n_P))
    length_P = (chance_PA * votes.length_PA).sum(1) + unanswered * votes.unanswered_length_P
    return np.stack([(chance_PA * votes.right_PA).sum(1), length_P, kl_P, (chance_PA**2).sum(1)], -1)


def vote_path(votes: Votes, ks: Sequence[int] | None = None) -> VotePath:
    """ks: default 1, 2, 4, ... and n, the fewest samples that a problem has; those above n are left out."""
    n = int(votes.samples_P.min())
    some = sorted({1, *(ks if ks is not None else (*(2**i for i in range(n.bit_length())), n))})
    some = [k for k in some if k <= n]
    rows = [_vote(votes, k) for k in some]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return VotePath(votes.problems, tuple(some), *columns)


def _vote(votes: Votes, k: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Accuracy, length, KL, by how much halving moved it, and agreement of the vote of k, each [P]."""
    whole = (votes.count_PA, votes.unanswered_P)
    halves = ((votes.half_PA, votes.half_unanswered_P), (whole[0] - votes.half_PA, whole[1] - votes.half_unanswered_P))
    win_PA, none_P = winners(*whole, k)
    accuracy_P = (win_PA * votes.right_PA).sum(1)
    length_P = (win_PA * votes.length_PA).sum(1) + none_P * votes.unanswered_length_P
    unknown_P = np.full(len(none_P), np.nan)
    kl_P, moved_P, agreement_P = unknown_P, unknown_P, unknown_P
    if all((counts.sum(1) + unanswered >= k).all() for counts, unanswered in halves):
        won = [winners(counts, unanswered, k) for counts, unanswered in halves]
        agreement_P = (won[0][0] * won[1][0]).sum(1)
        if votes.samples_P.min() >= A_VOTE * k or k == 1:
            half_P = np.mean([_kl(*pair, *mine) for pair, mine in zip(won, halves, strict=True)], axis=0)
            moved_P = _kl(win_PA, none_P, *whole) - half_P
            kl_P = half_P + 2 * moved_P
    return accuracy_P, length_P, kl_P, moved_P, agreement_P


def _kl(win_PA: Floats, none_P: Floats, count_PA: Ints, unanswered_P: Ints) -> Floats:
    """Of the answers of a vote, which are in the base's own wordings, to the base's, in nats, [P]."""
    n_P = count_PA.sum(1) + unanswered_P
    both = zip((win_PA, none_P[:, None]), (count_PA, unanswered_P[:, None]), strict=True)
    terms = [_log_ratio(chance, given / n_P[:, None]) for chance, given in both]
    total: Floats = np.concatenate(terms, axis=1).sum(1)
    return total


def _log_ratio(chance: Floats, base: Floats) -> Floats:
    there = chance > 0
    return np.where(there, chance * np.log(np.where(there, chance, 1.0) / np.where(there, base, 1.0)), 0.0)


def winners(count_PA: Ints, unanswered_P: Ints, k: int) -> tuple[Floats, Floats]:
    """Chance that each answer wins the vote of k samples drawn without replacement, [P, A]; and that nobody votes."""
    n_P = count_PA.sum(1) + unanswered_P
    able = unanswered_P >= k
    log_none = gammaln(unanswered_P + 1.0) - gammaln(np.where(able, unanswered_P - k, 0) + 1.0)
    log_none += gammaln(n_P - k + 1.0) - gammaln(n_P + 1.0)
    return vote_chances(count_PA, unanswered_P, k), np.where(able, np.exp(log_none), 0.0)
