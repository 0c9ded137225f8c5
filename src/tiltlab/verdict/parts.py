"""A gain in its parts, one after the other: it ends and answers, it answers where it is read, sharpened, taught. Pure.

The order is fixed, since parts overlap: what a base would have by ending as often is told first, and only what is left
can be sharpening. With f the share of responses that end and answer, c the base's accuracy among its own that do, and d
among those that do not, by problem:

    ends        f_tuned c + (1 - f_tuned) d, less what the base has
    read        what is left of the gain then, less what is left where all is graded leniently (f, c and d likewise)
    sharpened   what the best sharpening adds to c, on held-out problems, times f_tuned; where that is more than what
                is left, what is left
    taught      the rest

Left out on purpose: an order in which sharpening comes first. Sharpening may teach a base to end; it is then form here.
"""

from dataclasses import dataclass

import numpy as np

from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.metrics import Interval
from tiltlab.verdict.form import FormTable, Reading
from tiltlab.verdict.held_out import Resamples


@dataclass(frozen=True)
class Parts:
    """Of accuracy; negative ones included, they sum to the gain. Intervals are over problems, 95 %.

    ends: by coming to an end, with an answer, as often as the tuned model does. read: by answering where answers are
        read; 0 where nobody graded leniently (`read_known`): what is not read then counts as no answer.
    sharpened: what the best sharpening of the base so formed adds, as far as training got; 0 where none could be told
        (`sharpened_known`).
    taught: the rest.
    form: share of the gain that the first two are; 0 where there is no gain.
    after_form: what the last two are together.
    base_form, tuned_form: share of responses that end and answer.
    lacking: problems of which no response of the base does: they are taken to be like those of which few do.
    """

    ends: Interval
    read: Interval
    sharpened: Interval
    taught: Interval
    form: Interval
    after_form: Interval
    read_known: bool
    sharpened_known: bool
    base_form: float
    tuned_form: float
    lacking: int


@dataclass(frozen=True)
class Split:
    """The gain in each resample, [R], sharpened as far as it goes, beyond what training had if it can."""

    before_R: Floats
    ends_R: Floats
    read_R: Floats
    sharpened_R: Floats
    taught_R: Floats

    @property
    def gain_R(self) -> Floats:
        return self.ends_R + self.read_R + self.sharpened_R + self.taught_R

    @property
    def sharpened_to_R(self) -> Floats:
        """Accuracy of the base, formed like the tuned model and sharpened."""
        return self.before_R + self.ends_R + self.read_R + self.sharpened_R

    def share_R(self, part_R: Floats) -> Floats:
        """Of the gain; 0 where there is none."""
        share: Floats = np.divide(part_R, self.gain_R, out=np.zeros_like(part_R), where=self.gain_R > 0)
        return share


def split(table: FormTable, added_R: Floats, drawn: Resamples) -> Split:
    """added_R: what sharpening adds to the base, formed like the tuned model, as held_out.best_added has it."""
    strict_R, lenient_R = (_formed(table, reading, drawn) for reading in (table.strict, table.lenient))
    before_R, after_R = drawn.mean(table.strict.base_P), drawn.mean(table.strict.tuned_P)
    left_R = drawn.mean(table.lenient.tuned_P) - lenient_R
    sharpened_R = np.clip(lenient_R + added_R, 0.0, 1.0) - lenient_R  # estimates of p^alpha may leave [0, 1]
    return Split(
        before_R=before_R,
        ends_R=strict_R - before_R,
        read_R=after_R - strict_R - left_R,
        sharpened_R=sharpened_R,
        taught_R=left_R - sharpened_R,
    )


def parts(table: FormTable, gain: Split, drawn: Resamples, *, sharpened_known: bool) -> Parts:
    left_R = gain.sharpened_R + gain.taught_R
    sharpened_R = np.minimum(gain.sharpened_R, np.maximum(left_R, 0.0))
    return Parts(
        ends=drawn.interval(gain.ends_R),
        read=drawn.interval(gain.read_R),
        sharpened=drawn.interval(sharpened_R),
        taught=drawn.interval(left_R - sharpened_R),
        form=drawn.interval(gain.share_R(gain.ends_R + gain.read_R)),
        after_form=drawn.interval(left_R),
        read_known=table.lenient_known,
        sharpened_known=sharpened_known,
        base_form=float(table.base_P.mean()),
        tuned_form=float(table.tuned_P.mean()),
        lacking=table.lacking,
    )


def _formed(table: FormTable, reading: Reading, drawn: Resamples) -> Floats:
    """Accuracy of the base if it ended and answered as often as the tuned model, [R]."""
    with_R = reading.with_form.sums(drawn.both_RP, table.tuned_P)
    without_R = reading.without_form.sums(drawn.both_RP, 1 - table.tuned_P)
    formed: Floats = (with_R + without_R) / len(table.tuned_P)
    return formed
