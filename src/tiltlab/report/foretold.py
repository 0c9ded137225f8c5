"""Arms that train without a label: what the base's samples said would become of them, what did, and where on the path
from the base to its end each run stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from tiltlab.forecast.lines import LinePoint, Lines
from tiltlab.forecast.rise import Method, Rise
from tiltlab.report.along import Standing
from tiltlab.report.figures import by_step
from tiltlab.report.findings import Findings
from tiltlab.report.load import ArmOnTask, Study
from tiltlab.report.styles import arm_colours
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import Json
from tiltlab.verdict.verdict import Verdict

Came = Literal["rose", "fell", "rose, then fell", "neither for sure"]

FELL = 0.05
"""Of accuracy, on the validation split: what must be gained first, and then be lost, to be called a rise and a fall."""


@dataclass(frozen=True)
class Foretold:
    """One arm.

    arm: by name.
    rise: what was said before training.
    came: what became of it.
    words: the same in figures, and where on its path the run stands.
    standing: beside the path; None where nobody knows.
    """

    arm: str
    rise: Rise
    came: Came
    words: str
    standing: Standing | None

    @property
    def kept(self) -> bool | None:
        """Whether it came as foretold; None where nothing was foretold, or neither came for sure."""
        if self.rise.outcome == "cannot tell" or self.came == "neither for sure":
            return None
        return self.came == "rose" if self.rise.outcome == "rises" else self.came != "rose"


def method_of(config: Json) -> Method | None:
    """How an arm trains without a label; None for one that has a label, or that the forecast does not know.

    config: the arm, as the recipe has it.
    """
    match config:
        case {"arm": "task_reward", "signal": "vote"}:
            return "vote"
        case {"arm": "entropy_minimization"}:
            return "entropy"
        case {"arm": "tempered" | "sharpening", "length": length} if length != "sum":
            return None
        case {"arm": "tempered", "alpha": alpha} if alpha > 1:
            return "tempered"
        case {"arm": "sharpening"}:
            return "sharpening"
    return None


def foretold(study: Study, task: str, findings: Findings) -> list[Foretold]:
    """Of all arms of a task that train without a label; empty where there is no forecast of them.

    findings: of this task.
    """
    lines = findings.forecast.lines if findings.forecast else None
    if lines is None:
        return []
    rises: Mapping[Method, Rise] = {rise.method: rise for rise in lines.rises}
    colours = arm_colours(study)
    told = []
    for arm in study.on(task):
        method, verdict = method_of(arm.config), findings.verdicts.get(arm.name)
        if method in rises and verdict is not None and method is not None:
            where = _standing(arm.name, method, verdict, lines, colours[arm.name])
            words = f"{_figures(verdict, arm)}. {_stands(method, verdict, lines)}".strip()
            told.append(Foretold(arm.name, rises[method], _came(verdict, arm), words, where))
    return told


def _came(verdict: Verdict, arm: ArmOnTask) -> Came:
    peak = _peak(arm)
    if peak is not None:
        return "rose, then fell"
    gain = verdict.gain.difference
    return "rose" if gain.low > 0 else "fell" if gain.high < 0 else "neither for sure"


def _peak(arm: ArmOnTask) -> tuple[int, float] | None:
    """Step and accuracy of the highest validation, where the curve rose to it and then fell."""
    steps, values = by_step([seeded.validation for seeded in arm.seeds], "validation", "accuracy")
    curve = values.mean(1)
    if len(curve) < 3 or np.isnan(curve).any():
        return None
    top = int(curve.argmax())
    turned = min(curve[top] - curve[0], curve[top] - curve[-1]) > FELL
    return (steps[top], float(curve[top])) if turned else None


def _figures(verdict: Verdict, arm: ArmOnTask) -> str:
    said = f"{verdict.gain.a.value:.3f} → {verdict.gain.b.value:.3f}"
    if peak := _peak(arm):
        said += f", on validation {peak[1]:.3f} at step {peak[0]}"
    return said


def _stands(method: Method, verdict: Verdict, lines: Lines) -> str:
    """Where on its path a run stands, in a sentence; empty where nobody knows."""
    place = _place(method, verdict, lines)
    if place is None:
        return ""
    k, accuracy, beyond = place
    what = f"the vote of {k:.2g}" if method == "vote" else f"the likeliest of {k:.2g}"
    if beyond:
        return f"It went further than {what}, the last that can be compared, which has {accuracy:.3f}"
    return f"It stands where {what} would, which has {accuracy:.3f}"


def _standing(name: str, method: Method, verdict: Verdict, lines: Lines, colour: str) -> Standing | None:
    place = _place(method, verdict, lines)
    if place is None:
        return None
    return Standing(name, place[0], verdict.gain.b, place[2], colour, "square" if method == "vote" else "circle")


def _place(method: Method, verdict: Verdict, lines: Lines) -> tuple[float, float, bool] | None:
    """k on its path, the path's accuracy there, and whether the run went further: by how often two responses agree
    along the votes, by log p along the likeliest of k."""
    of = verdict.sharpened and (verdict.sharpened.answers if method == "vote" else verdict.sharpened.likelihood)
    if not of or of.followed is None:
        return None
    points = [point for point in (lines.votes if method == "vote" else lines.ranks) if point.accuracy is not None]
    heights = [(point, point.agreement if method == "vote" else point.logp) for point in points]
    return place_on([(point, height) for point, height in heights if height is not None], of.followed.tuned)


def place_on(path: Sequence[tuple[LinePoint, Interval]], height: float) -> tuple[float, float, bool] | None:
    """Where on a path something that rises along it has a value: k, between the path's ks by log k, the accuracy there,
    and whether the path ends below that value; None for a path of fewer than two points."""
    known = [(log(point.strength), point.accuracy.value, at.value) for point, at in path if point.accuracy]
    if len(known) < 2:
        return None
    ks, accuracies, heights = (list(column) for column in zip(*known, strict=True))
    climbed = np.maximum.accumulate(heights)
    place = float(np.interp(height, climbed, ks))
    return exp(place), float(np.interp(place, ks, accuracies)), bool(height > climbed[-1] + 1e-9)
