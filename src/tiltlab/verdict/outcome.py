"""The outcome of a verdict, from what is known of a gain: rules first, then the words for them. Pure.

Left out on purpose: figures. Whatever is weighed here was told before, with its interval.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tiltlab.forecast.reliability import MIN_PROBLEMS
from tiltlab.stats.metrics import Interval
from tiltlab.stats.paired import Comparison
from tiltlab.verdict.parts import Parts
from tiltlab.verdict.sharpened import Best, By, OfFamily, Sharpened
from tiltlab.verdict.solved_problems import Profile
from tiltlab.verdict.wording import (
    ANSWERS,
    MORE_SAMPLES,
    SCORES,
    UNREAD,
    UNSCORED,
    beyond,
    by_form,
    by_sharpening,
    how_far,
    more_samples,
    of_which,
    signed,
    what_fell,
)

Outcome = Literal[
    "beyond sharpening", "sharpening explains it", "form explains it", "no gain", "collapse", "cannot tell"
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

MOST = 0.8
"""Of the gain: what must be recovered for sure to explain it, whatever is left over."""

HALF = 0.5
"""Likewise where what is left over may be nothing."""


@dataclass(frozen=True)
class Decision:
    """why: one sentence or more. needs: what would decide it, where nothing is decided. by: which sharpening explains
    it, where that is the outcome."""

    outcome: Outcome
    why: str
    needs: str | None = None
    by: By | None = None


@dataclass(frozen=True)
class Known:
    """All that is weighed: the gain, what sharpening would have of it, its parts, and what responses are like.

    scored: whether it is known how likely the base finds both models' responses.
    unread: whether nobody read answers.
    """

    gain: Comparison
    sharpened: Sharpened | None
    parts: Parts | None
    base: Profile
    tuned: Profile
    scored: bool = True
    unread: bool = False


def decided(known: Known, margin: float) -> Decision:
    """margin: of accuracy, what is no gain worth the name."""
    gain, d = known.gain, known.gain.difference
    told = f"accuracy {gain.a.value:.3f} → {gain.b.value:.3f} ({signed(d)} on {gain.problems} problems)"
    if np.isnan(d.low):
        why = f"One problem gives no interval: accuracy {gain.a.value:.3f} → {gain.b.value:.3f}."
        return Decision("cannot tell", why, "more problems")
    if d.high < 0:
        return Decision("collapse", f"The tuned model is worse: {told}{what_fell(known.base, known.tuned)}.")
    if d.low <= 0:
        if -margin < d.low and d.high < margin:
            return Decision("no gain", f"Nothing beyond {margin:g} either way: {told}.")
        more = int(np.ceil(gain.problems * ((d.high - d.low) / 2 / margin) ** 2))
        return Decision("cannot tell", f"The interval holds both a gain and none: {told}.", f"about {more} problems")
    enough = gain.problems >= MIN_PROBLEMS
    if enough and known.parts and explained(known.parts.form, known.parts.after_form):
        return Decision("form explains it", f"A gain: {told}; {by_form(known.parts)}.")
    if known.sharpened is None:
        why = f"A gain: {told}; but the base's samples support no forecast."
        return Decision("cannot tell", why, MORE_SAMPLES if known.scored else SCORES)
    return _of_a_gain(f"A gain: {told}", gain.b.value, known.sharpened, known)


def explained(share: Interval, rest: Interval) -> bool:
    """Whether something is the gain: most of it for sure, or half for sure, and the rest may be nothing."""
    return share.low >= MOST or (share.low >= HALF and rest.low <= 0)


def _explaining(of: Best | None) -> Best | None:
    """What explains the gain: the best, or what is as likely as the tuned model's responses."""
    tried = (of, of.alike if isinstance(of, OfFamily) else None)
    return next((one for one in tried if one and explained(one.recovered, one.rest)), None)


def _of_a_gain(told: str, reached: float, sharpened: Sharpened, known: Known) -> Decision:
    parts = known.parts
    likelihood, answers = _explaining(sharpened.likelihood), _explaining(sharpened.answers)
    if best := _explaining(sharpened) or likelihood or answers:
        left = "" if best.recovered.low >= MOST else ", and what is left may be nothing"
        by: By = "both" if bool(likelihood) == bool(answers) else "likelihood" if likelihood else "answers"
        which = of_which(by, likelihood or sharpened.likelihood, answers or sharpened.answers)
        why = f"{told}; {by_sharpening(reached, best, parts)}{left}. {which}."
        return Decision("sharpening explains it", why, by=by)
    tried = by_sharpening(reached, sharpened, parts)
    if sharpened.covers and all(of.rest.low > 0 for of in (sharpened, sharpened.likelihood, sharpened.answers) if of):
        return Decision("beyond sharpening", f"{told}; {tried}.{beyond(sharpened)}")
    why = "; ".join([told, tried, *how_far(sharpened)])
    if not known.scored:
        return Decision("cannot tell", f"{why}; {UNSCORED}.", SCORES)
    if known.unread:
        return Decision("cannot tell", f"{why}; {UNREAD}.", ANSWERS)
    return Decision("cannot tell", f"{why}.", "more problems" if sharpened.covers else more_samples(sharpened))
