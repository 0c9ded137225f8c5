"""Which answers a model gives, and how often: all that voting needs to know. Pure.

Answers are compared as the grader left them: Record.answer is the task's normal form, so that 0.5 and \\frac12 are one.

Left out on purpose: what a response without an answer may have meant. It agrees with none, casts no vote, and is
counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma

from tiltlab.errors import UserError, shown
from tiltlab.forecast.weighted_samples import FEWEST, Bools, Floats, Ints
from tiltlab.stats.by_problem import by_problem, graded
from tiltlab.types import Record

LONGEST = 8
"""Words of letters in an answer: one with more is text, of which no two are ever the same."""


@dataclass(frozen=True)
class Votes:
    """How often each answer was given, [P, A]; shorter rows are padded with 0.

    problems: the P problems with at least FEWEST graded samples; left_out: how many have fewer.
    count_PA: how many samples gave the answer.
    right_PA: 1 where it is right, else 0.
    length_PA: mean length of the responses that gave it, in tokens.
    unanswered_P: graded samples without an answer; unanswered_length_P: their mean length, 0 where there are none.
    half_PA, half_unanswered_P: count_PA and unanswered_P of every second sample.
    """

    problems: tuple[str, ...]
    left_out: int
    count_PA: Ints
    right_PA: Floats
    length_PA: Floats
    unanswered_P: Ints
    unanswered_length_P: Floats
    half_PA: Ints
    half_unanswered_P: Ints

    @property
    def samples_P(self) -> Ints:
        """Graded samples of each problem."""
        samples_P: Ints = self.count_PA.sum(1) + self.unanswered_P
        return samples_P


def votes_of(records: Sequence[Record]) -> Votes:
    """The answers of a model's own responses; of those alone whose grade is known.

    Raises UserError where no problem has FEWEST graded samples, and, naming the task, where its responses have no
    answers or its answers are free text.
    """
    groups = {name: group for name, group in by_problem(graded(records)).items() if len(group) >= FEWEST}
    if not groups:
        raise UserError(f"forecast: no problem has the {FEWEST} graded samples that it takes")
    _require_answers([record for group in groups.values() for record in group])
    shape = (len(groups), max(map(len, groups.values())))
    answer_PN, right_PN, tokens_PN = np.full(shape, -2), np.zeros(shape), np.zeros(shape)
    for p, group in enumerate(groups.values()):
        numbers: dict[str | None, int] = {None: -1}
        for i, record in enumerate(group):
            answer_PN[p, i] = numbers.setdefault(record.answer, len(numbers) - 1)
        right_PN[p, : len(group)] = [record.reason == "correct" for record in group]
        tokens_PN[p, : len(group)] = [record.tokens for record in group]
    everyone = {record.problem for record in records}
    return tally(tuple(groups), answer_PN, right_PN, tokens_PN, left_out=len(everyone) - len(groups))


def tally(problems: tuple[str, ...], answer_PN: Ints, right_PN: Floats, tokens_PN: Floats, left_out: int = 0) -> Votes:
    """Votes by the number of each sample's answer: 0, 1, ...; -1 is none, and -2 pads a row. An answer is right where
    any response that gave it was graded so."""
    second = np.arange(answer_PN.shape[1]) % 2 == 1
    rows = np.arange(len(answer_PN))[:, None]

    def sums(values_PN: Floats | Bools) -> Floats:
        """Over the samples with each answer, the last for none: -1 counts from the end, and what pads adds nothing."""
        table = np.zeros((len(answer_PN), max(1, int(answer_PN.max()) + 1) + 1))
        there = np.where(answer_PN >= -1, values_PN, 0.0)
        np.add.at(table, (rows, np.maximum(answer_PN, -1)), there)
        return table

    count, half = sums(np.ones(answer_PN.shape)), sums(np.broadcast_to(second, answer_PN.shape))
    length = sums(tokens_PN) / np.maximum(count, 1)
    return Votes(
        problems=problems,
        left_out=left_out,
        count_PA=count[:, :-1].astype(np.intp),
        right_PA=(sums(right_PN)[:, :-1] > 0).astype(float),
        length_PA=length[:, :-1],
        unanswered_P=count[:, -1].astype(np.intp),
        unanswered_length_P=length[:, -1],
        half_PA=half[:, :-1].astype(np.intp),
        half_unanswered_P=half[:, -1].astype(np.intp),
    )


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
        if sum(map(is_free_text, answers)) > len(answers) / 2:
            raise UserError(
                f"forecast: answers of task {shown(task)} are free text, which has no normal form to vote on; "
                "grade short answers"
            )


def is_free_text(answer: str) -> bool:
    """Whether an answer has no normal form to vote on: it has lines, or more than LONGEST words."""
    words = [word for word in answer.split() if sum(map(str.isalpha, word)) > 1]
    return "\n" in answer or len(words) > LONGEST


def agreement(records: Sequence[Record]) -> Mapping[str, float]:
    """Chance that two graded responses to a problem give the same answer, by problem, unbiased: how concentrated a
    model's answers are. NaN where a problem has fewer than two."""
    agreements = {}
    for name, group in by_problem(graded(records)).items():
        count, n = Counter(r.answer for r in group if r.answer is not None), len(group)
        agreements[name] = sum(c * (c - 1) for c in count.values()) / (n * (n - 1)) if n > 1 else float("nan")
    return agreements


def answer_logs(count_PA: Ints, among_P: Ints) -> Floats:
    """log P of each answer, in nats, [P, A]: digamma's, whose bias in sums of P log P is slight (Grassberger 1988)."""
    logs: Floats = digamma(np.maximum(count_PA, 1)) - digamma(np.maximum(among_P, 1))[:, None]
    return logs


def vote_covariances(votes: Votes) -> Floats:
    """Cov of (correct, log P(answer)) among a problem's responses with an answer, in nats, [P]: d accuracy / d g of
    answer power at g = 1. NaN where fewer than two have one.

    In the product of means, correct is another sample's than log P: no sample votes for itself.
    """
    count_PA, n_P = votes.count_PA, votes.count_PA.sum(1)
    right_P = (count_PA * votes.right_PA).sum(1)

    with np.errstate(invalid="ignore", divide="ignore"):
        together_P = (count_PA * votes.right_PA * answer_logs(count_PA, n_P)).sum(1) / n_P
        others_PA = count_PA * answer_logs(count_PA, n_P - 1)
        less_one_PA = (count_PA - 1) * answer_logs(count_PA - 1, n_P - 1)  # the right one taken out of its own answer
        apart_P = right_P * others_PA.sum(1) + (count_PA * votes.right_PA * (less_one_PA - others_PA)).sum(1)
        return np.where(n_P > 1, together_P - apart_P / (n_P * (n_P - 1)), np.nan)
