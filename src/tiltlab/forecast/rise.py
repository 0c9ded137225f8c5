"""Will a run that rewards itself rise or collapse? Told from the base's samples, before any training. Pure.

Each such run follows a path from the base: votes towards its most frequent answers, sharpening towards its likeliest
responses, and p^alpha part of that way. The sign of what the path's far end has more than the base decides; where the
path has a maximum inside, a run rises and then falls, as public work finds (arXiv 2603.08660). Minimising entropy
starts out along the likelihood, and where it ends is for noise to say: only its start is foretold.

Left out on purpose: how fast a run moves along its path, and how far its budget takes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tiltlab.forecast.ranks import RankPath
from tiltlab.forecast.reliability import FEW_PROBLEMS, MIN_PROBLEMS, mean_of_problems
from tiltlab.forecast.voting import VotePath
from tiltlab.forecast.weighted_samples import Floats
from tiltlab.stats.metrics import Interval

Method = Literal["vote", "tempered", "sharpening", "entropy"]
Fate = Literal["rises", "collapses", "cannot tell"]


@dataclass(frozen=True)
class Rise:
    """What becomes of the accuracy of a method that needs no label.

    outcome: rises or collapses, where that is sure. why: in one line.
    end: accuracy at the far end of its path less the base's; None where there is no path.
    peak: where the path surely has its maximum before its end: the likeliest of so many, or so many votes.
    """

    method: Method
    outcome: Fate
    why: str
    end: Interval | None = None
    peak: float | None = None


def rises(ranks: RankPath, votes: VotePath | None, slope: Interval) -> tuple[Rise, ...]:
    """Vote, tempered, sharpening and entropy, in this order; no vote where there is nothing to vote on.

    slope: Cov(correct, log p), in nats.
    """
    voted = [_voted(votes)] if votes is not None else []
    if len(ranks.problems) < MIN_PROBLEMS:
        rest: list[Method] = ["tempered", "sharpening", "entropy"]
        return (*voted, *(Rise(method, "cannot tell", FEW_PROBLEMS) for method in rest))
    end, peak = _end(ranks.accuracy_KP), _peak(ranks.ks, ranks.accuracy_KP)
    far = f"the likeliest of {ranks.ks[-1]} {_told(ranks.accuracy_KP)}"
    start = f"the slope along log p is {slope.value:+.3f} [{slope.low:+.3f}, {slope.high:+.3f}]"
    both = f"{start}, and {far}"
    first, last = _sign(slope), _sign(end)
    turns = "; it turns on the way" if first * last < 0 else ""
    return (
        *voted,
        Rise("tempered", _fate(first if first == last else 0), both + turns, end, peak),
        Rise("sharpening", _fate(last), far, end, peak),
        Rise("entropy", _fate(0 if first * last < 0 else first), both + turns, end, peak),
    )


def _voted(votes: VotePath) -> Rise:
    if len(votes.problems) < MIN_PROBLEMS:
        return Rise("vote", "cannot tell", FEW_PROBLEMS)
    end = _end(votes.accuracy_KP)
    why = f"the vote of {votes.ks[-1]} {_told(votes.accuracy_KP)}"
    return Rise("vote", _fate(_sign(end)), why, end, _peak(votes.ks, votes.accuracy_KP))


def _end(accuracy_KP: Floats) -> Interval:
    return mean_of_problems(accuracy_KP[-1] - accuracy_KP[0])


def _told(accuracy_KP: Floats) -> str:
    return f"is right {accuracy_KP[-1].mean():.0%} of the time, a response {accuracy_KP[0].mean():.0%}"


def _sign(interval: Interval) -> int:
    return 1 if interval.low > 0 else -1 if interval.high < 0 else 0


def _fate(sign: int) -> Fate:
    return "rises" if sign > 0 else "collapses" if sign < 0 else "cannot tell"


def _peak(ks: Sequence[int], accuracy_KP: Floats) -> float | None:
    """The k of the path's maximum, where it is surely above the base and above the end."""
    top = int(np.argmax(accuracy_KP.mean(1)))
    above = [mean_of_problems(accuracy_KP[top] - accuracy_KP[place]).low > 0 for place in (0, -1)]
    return float(ks[top]) if 0 < top < len(ks) - 1 and all(above) else None
