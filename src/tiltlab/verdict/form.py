"""Form: does a response end, and does it give an answer that can be read? By problem, and what a base would have if it
were as formed as another model. Pure.

The base is conditioned on ending and answering, which takes no label: anybody can draw until a response does. Within a
problem that is a mean over the responses that do. A problem of which none does is taken to be like those of which few
do: samples that none of a random half of the samples would have told of stand for it.

Left out on purpose: reading (grading/). Lenient grades come with the evidence, or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln

from tiltlab.forecast.weighted_samples import Bools, Floats
from tiltlab.types import UNKNOWN, Record

FLOOR = 1e-9
"""Weight of a problem that is unlike those it stands for: it counts where there is no other."""


def has_form(record: Record) -> bool:
    """Whether it came to an end of its own with an answer that was read."""
    return record.complete and record.reason != "no_answer"


def formed(records: Sequence[Record]) -> list[Record]:
    """Those with form, in order."""
    return [record for record in records if has_form(record)]


def others_unused(records: Sequence[Record]) -> list[Record]:
    """All of them, those without form as if they were truncated: samples of the base given its form, of which it is
    still known how many were drawn."""
    return [record if has_form(record) else replace(record, complete=False) for record in records]


@dataclass(frozen=True)
class Conditional:
    """A mean within each problem over some of its responses, [P].

    mean_P: NaN where there are none. alike_P: how much a problem is like those of which there are none: the chance that
    a random half of its samples holds none.
    """

    mean_P: Floats
    alike_P: Floats

    def sums(self, count_RP: Floats, scale_P: Floats, mean_P: Floats | None = None) -> Floats:
        """Sum over problems of scale x mean, [R], each problem as often as `count_RP` says; where there is no mean, the
        weighted one of problems alike. mean_P: in place of this one's, with further gaps."""
        values_P = self.mean_P if mean_P is None else mean_P
        there = ~np.isnan(values_P)
        known_P = np.where(there, values_P, 0.0)
        weight_P = np.where(there, (self.alike_P + FLOOR) * (scale_P + FLOOR), 0.0)
        total_R = count_RP @ weight_P
        filled_R = np.divide(count_RP @ (weight_P * known_P), total_R, out=np.zeros_like(total_R), where=total_R > 0)
        sums: Floats = count_RP @ (scale_P * known_P) + filled_R * (count_RP @ (scale_P * ~there))
        return sums


def _conditional(chosen: Sequence[Bools], right: Sequence[Bools]) -> Conditional:
    """Of the share that is right among the chosen ones."""
    size_P = np.array([len(which) for which in chosen], dtype=float)
    there_P = np.array([which.sum() for which in chosen], dtype=float)
    right_P = np.array([(which & good).sum() for which, good in zip(chosen, right, strict=True)], dtype=float)
    mean_P = np.divide(right_P, there_P, out=np.full(len(size_P), np.nan), where=there_P > 0)
    half_P, rest_P = size_P // 2, size_P - there_P
    able = rest_P >= half_P
    log_chance_P = _log_choose(np.where(able, rest_P, half_P), half_P) - _log_choose(size_P, half_P)
    return Conditional(mean_P, np.where(able, np.exp(log_chance_P), 0.0))


def _log_choose(n: Floats, k: Floats) -> Floats:
    log_ratio: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return log_ratio


@dataclass(frozen=True)
class Reading:
    """Accuracy of both models by one way of reading, and the base's among its responses with and without form."""

    base_P: Floats
    tuned_P: Floats
    with_form: Conditional
    without_form: Conditional


@dataclass(frozen=True)
class FormTable:
    """Both models by problem, over the P problems that both have graded responses to.

    problems: their ids. base_P, tuned_P: share of responses with form, in [0, 1]. strict: as they were graded.
    lenient: as they are graded leniently; the same as `strict` where nobody did. lenient_known: whether somebody did.
    """

    problems: tuple[str, ...]
    base_P: Floats
    tuned_P: Floats
    strict: Reading
    lenient: Reading
    lenient_known: bool

    @property
    def lacking(self) -> int:
        """Problems of which no response of the base has form, though the tuned model's do."""
        return int((np.isnan(self.lenient.with_form.mean_P) & (self.tuned_P > 0)).sum())


def form_table(
    base: Sequence[Record], tuned: Sequence[Record], lenient: tuple[Sequence[Record], Sequence[Record]] | None
) -> FormTable:
    """lenient: the same records of both, in the same order, graded leniently; form is then what that reads."""
    of_base, of_tuned = _pairs(base, lenient[0] if lenient else base), _pairs(tuned, lenient[1] if lenient else tuned)
    both = [key for key in of_base if key in of_tuned]
    formed_base, formed_tuned = (
        [np.array([has_form(read) for _, read in of[key]]) for key in both] for of in (of_base, of_tuned)
    )

    def reading(which: int) -> Reading:
        right_base, right_tuned = (
            [np.array([pair[which].reason == "correct" for pair in of[key]]) for key in both]
            for of in (of_base, of_tuned)
        )
        return Reading(
            base_P=_means(right_base),
            tuned_P=_means(right_tuned),
            with_form=_conditional(formed_base, right_base),
            without_form=_conditional([~which for which in formed_base], right_base),
        )

    return FormTable(
        problems=tuple(problem for _, problem in both),
        base_P=_means(formed_base),
        tuned_P=_means(formed_tuned),
        strict=reading(0),
        lenient=reading(1),
        lenient_known=lenient is not None,
    )


def _pairs(strict: Sequence[Record], lenient: Sequence[Record]) -> dict[tuple[str, str], list[tuple[Record, Record]]]:
    """Graded records by problem, each with its lenient grade, or itself where that is not known."""
    pairs: dict[tuple[str, str], list[tuple[Record, Record]]] = {}
    for record, read in zip(strict, lenient, strict=True):
        if record.reason not in UNKNOWN:
            group = pairs.setdefault((record.task, record.problem), [])
            group.append((record, record if read.reason in UNKNOWN else read))
    return pairs


def _means(rows: Sequence[Bools]) -> Floats:
    return np.array([row.mean() for row in rows])
