"""What the best sharpening of the base would have of a gain: by its likelihood, by its answers, and by either. Pure.

Left out on purpose: judgement (outcome.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltlab.stats.metrics import Interval
from tiltlab.verdict.candidates import NONE, Candidate, Family
from tiltlab.verdict.followed import Followed
from tiltlab.verdict.form import FormTable
from tiltlab.verdict.held_out import Resamples, best_added
from tiltlab.verdict.parts import Split, split

By = Literal["likelihood", "answers", "both"]

LUCK = 0.05
"""Of accuracy: on so many problems at most, the most frequent answer looks the rarer one by two standard errors."""


@dataclass(frozen=True)
class Best:
    """The best of some sharpenings of the base, which ends and answers as often as the tuned model, on held-out halves
    of the problems.

    accuracy: its own. recovered: its share of the tuned model's gain, form included. rest: accuracy of the tuned model
    beyond it. chosen: which sharpening each half chose.
    """

    accuracy: Interval
    recovered: Interval
    rest: Interval
    chosen: tuple[str, ...]

    @property
    def named(self) -> str:
        """What was chosen, for people."""
        return " and ".join("the base as it is" if name == NONE else name for name in self.chosen)

    @property
    def is_none(self) -> bool:
        """Whether nothing beats the base as it is."""
        return set(self.chosen) == {NONE}


@dataclass(frozen=True)
class OfFamily(Best):
    """Likewise of one family alone.

    alike: of the base's responses as likely as the tuned model's, which are told from log p alone and chosen by no
        accuracy; None where they are out of reach, and of answers.
    followed: how far it goes beside the tuned model; None where nobody knows.
    limit: accuracy that it cannot exceed, however far it is followed; None where nobody knows. out_of_reach: whether
        the tuned model has more than that for sure.
    """

    alike: Best | None
    followed: Followed | None
    limit: Interval | None
    out_of_reach: bool

    @property
    def far_enough(self) -> bool:
        """Whether what lies further along it is no closer to what the tuned model does."""
        return self.out_of_reach or (self.followed is not None and self.followed.reached)


@dataclass(frozen=True)
class Sharpened(Best):
    """Likewise of all there are.

    reach: the largest alpha that the samples support. covers: whether each family was followed as far as the tuned
    model went, so that what lies further on is no closer to what the tuned model does.
    likelihood, answers: of one family alone; None where nothing is known of it.
    """

    reach: float
    covers: bool
    likelihood: OfFamily | None
    answers: OfFamily | None


def best(table: FormTable, some: Sequence[Candidate], drawn: Resamples) -> tuple[Best, Split]:
    """The best of some candidates, the first of which is the base as it is; and the gain in its parts with it."""
    gaps = table.lenient.with_form
    added_R, chosen = best_added([one.accuracy_P - gaps.mean_P for one in some], table.tuned_P, gaps, drawn)
    gain = split(table, added_R, drawn)
    of = Best(
        accuracy=drawn.interval(gain.sharpened_to_R),
        recovered=drawn.interval(gain.share_R(gain.gain_R - gain.taught_R)),
        rest=drawn.interval(gain.taught_R),
        chosen=tuple(some[i].name for i in chosen),
    )
    return of, gain


def of_family(
    table: FormTable,
    known: Sequence[Candidate],
    family: Family,
    followed: Followed | None,
    drawn: Resamples,
    *,
    alike: Candidate | None = None,
    limit: Candidate | None = None,
) -> OfFamily | None:
    """None where the family has no candidate but the base as it is. alike: responses as likely as the tuned model's.
    limit: what no sharpening of the family can exceed."""
    some = [one for one in known if one.name == NONE or one.families == (family,)]
    if len(some) == 1:
        return None
    of, _ = best(table, some, drawn)
    most = best(table, [limit], drawn)[0] if limit else None
    return OfFamily(
        **vars(of),
        alike=best(table, [alike], drawn)[0] if alike else None,
        followed=followed,
        limit=most.accuracy if most else None,
        out_of_reach=most is not None and most.rest.low > LUCK,
    )
