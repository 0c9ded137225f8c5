"""A forecast as one HTML page that needs no network, and in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltlab.forecast.forecast import Forecast
from tiltlab.forecast.frontier import sharpening_path
from tiltlab.forecast.lines import LinePoint, Lines
from tiltlab.forecast.rise import Method, Rise
from tiltlab.forecast.steps import PRICE
from tiltlab.report.along import along
from tiltlab.report.frontier import STRENGTHS, Reached, frontier
from tiltlab.report.html import render_page
from tiltlab.report.text import interval, number, signed
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import write_text

METHODS: dict[Method, str] = {
    "vote": "votes",
    "tempered": "likelihood, held by a KL (tempered)",
    "sharpening": "likelihood alone (sharpening)",
    "entropy": "entropy (minimization)",
}

ALIKE = 0.005
"""Of accuracy: two points that differ by less are called equal, and the one nearer to the base is named."""

MUCH = 0.02
"""Of accuracy: a path that changes it by less has no share that is length."""

NONE = 0.05
"""Of the change along a path: a share that is not worth a word."""


def in_words(forecast: Forecast) -> str:
    """What sharpening by likelihood, voting and a reward reach, as far as the samples tell."""
    lines, reward = forecast.lines, _of_reward(forecast)
    if lines is None:
        return _of_powers(forecast)
    if lines.ranks[0].accuracy is None:
        return f"nothing is told of sharpening: {lines.ranks[0].why}. {reward}"
    said = [f"the base has {interval(lines.ranks[0].accuracy)}"]
    said.append(_reach(lines.ranks, "sharpening by likelihood", "sharpening"))
    said.append(_reach(lines.votes, "voting", "voting") if lines.votes else f"nothing to vote on: {lines.unvoted}")
    return f"{'; '.join(said)}. {reward}"


def _reach(points: Sequence[LinePoint], what: str, line: str) -> str:
    known = [(point, point.accuracy) for point in points if point.accuracy is not None]
    if not known:
        return f"nothing is told of {what}: {points[0].why}"
    most = max(accuracy.value for _, accuracy in known)
    best, accuracy = next(one for one in known if one[1].value >= most - ALIKE)
    if best.strength > 1:
        return f"{what} reaches {interval(accuracy)} ({named(line, best)})"
    last, end = known[-1]
    does = "hurts" if end.value < most - ALIKE else "changes nothing"
    return f"{what} {does} ({named(line, last)}: {interval(end)})"


def named(line: str, point: LinePoint) -> str:
    """A point of a line: the likeliest of 8, the vote of 8, answer power 2."""
    return f"{STRENGTHS[line]} {point.strength:g}"


def _of_powers(forecast: Forecast) -> str:
    """Of a forecast that knows p^alpha alone."""
    slope = forecast.slope
    way = "helps" if slope.low > 0 else "hurts" if slope.high < 0 else "may help or hurt"
    said = f"a little sharpening {way} (slope of accuracy in alpha {signed(slope)} at alpha 1). "
    path = sharpening_path(forecast)
    if not path:
        why = next(p.why for p in forecast.points if p.alpha == 1)
        return f"{said}Nothing more is told: {why}."
    best = max(path, key=lambda p: p.accuracy.value if p.accuracy else 0.0)
    said += f"Best on the sharpening path, supported to alpha {path[-1].alpha:g}: {interval(best.accuracy)} at alpha "
    return f"{said}{best.alpha:g}. {_of_reward(forecast)}"


def _of_reward(forecast: Forecast) -> str:
    rewarded = [p for p in forecast.points if p.supported and p.alpha == 1 and p.beta is not None]
    if rewarded:
        last = rewarded[-1]
        return f"A reward reaches {interval(last.accuracy)} at beta {last.beta:g}, for {interval(last.kl, 2)} nats."
    needed = next((p.samples_needed for p in forecast.points if p.alpha == 1 and p.beta is not None), None)
    if needed is None:
        return "The reward path is not supported."
    return f"The reward path is not supported; at least {needed} samples a problem would begin to."


def length_in_words(lines: Lines) -> str | None:
    """How much of the sharpening line is a liking for length; None where nobody knows."""
    if not lines.like_length:
        return None
    alike = lines.like_length[-1]
    whole = next(point for point in lines.ranks if point.strength == alike.strength)
    ends = [lines.ranks[0].accuracy, whole.accuracy, lines.like_length[0].accuracy, alike.accuracy]
    lengths = lines.ranks[0].length, whole.length
    if None in ends or None in lengths:
        return None
    before, after, like_before, like_after = (end.value for end in ends if end)
    short, long = (length.value for length in lengths if length)
    k = alike.strength
    said = (
        f"How much of it is length: for the likeliest of {k:g}, length goes from {short:.1f} to {long:.1f} tokens and "
    )
    said += f"accuracy from {before:.3f} to {after:.3f}; among a third of responses of like length, from "
    said += f"{like_before:.3f} to {like_after:.3f}."
    if abs(after - before) < MUCH:
        return said
    share = min(1.0, max(0.0, 1 - (like_after - like_before) / (after - before)))
    if share < NONE:
        return f"{said} None of the change is length."
    return f"{said} So {share:.0%} of the change is a liking for {'short' if long < short else 'long'} responses."


def fate(rise: Rise) -> str:
    """What becomes of a run, in a word or three."""
    turns = {"rises": "rises, then falls", "collapses": "rises, then collapses"}
    return turns.get(rise.outcome, rise.outcome) if rise.peak else rise.outcome


def reason_of(rise: Rise) -> str:
    """Why, in one line."""
    way = "vote" if rise.method == "vote" else "likeliest"
    return rise.why + (f"; highest at the {way} of {rise.peak:g}" if rise.peak else "")


def of_lines(forecast: Forecast | None) -> dict[str, Any]:
    """What lines.html.j2 asks for."""
    return {
        "price": number(PRICE, 2),
        "methods": METHODS,
        "fates": fate,
        "reason": reason_of,
        "length_in_words": length_in_words(forecast.lines) if forecast and forecast.lines else None,
        "lines_in_words": lines_in_words(forecast),
    }


def lines_in_words(forecast: Forecast | None) -> str:
    """What the lines of the frontier are."""
    said = "Accuracy against KL from the base, as the base’s samples tell it, before any training. "
    if forecast is None or forecast.lines is None:
        return said + "Orange, dashed: p^α (sharpening). Blue: p exp(r/β) (reward)."
    said += "Orange, dashed: the likeliest of k responses (sharpening), hollow: p^α. "
    if forecast.lines.votes:
        said += "Olive, dotted: the vote of k, as far as its KL is known, hollow: answer power. "
    return said + "Blue: p exp(r/β) (reward), which nothing beats at its KL."


def write_forecast_page(forecast: Forecast, made: Mapping[str, Any], path: Path) -> None:
    """Write the page. `made`: how (tiltlab.system.provenance). Raises UserError where it cannot be written."""
    base = next((p for p in forecast.points if p.alpha == 1 and p.beta is None), None)
    nowhere = Interval(0.0, 0.0, 0.0)
    here = [Reached("base", base.accuracy, nowhere, "#78838f")] if base and base.accuracy else []
    figures = {"frontier": frontier(forecast, here)}
    if forecast.lines and (beside := along(forecast.lines)):
        figures["along"] = beside
    page = render_page(
        "forecast.html.j2",
        figures,
        forecast=forecast,
        said=in_words(forecast),
        made=made,
        **of_lines(forecast),
    )
    write_text(path, page)
