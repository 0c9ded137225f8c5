"""Accuracy against KL from the base: what can be reached, and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from statistics import median

import plotly.graph_objects as go

from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.forecast.frontier import rank_points, reward_path, sharpening_path, vote_points, voting_points
from tiltlab.forecast.lines import LinePoint
from tiltlab.report.figures import dressed, label, titled
from tiltlab.report.names import Named, name_beside
from tiltlab.stats.metrics import Interval

_HEIGHT = (-0.03, 1.03)

STRENGTHS = {"sharpening": "the likeliest of", "voting": "the vote of", "answer power": "answer power"}
"""What a point of a line is called, in front of its number."""


@dataclass(frozen=True)
class Look:
    """How a line of a forecast looks. named: whether its name stands beside it."""

    name: str
    colour: str
    dash: str | None
    symbol: str
    thin: bool = False
    named: bool = True


SHARPENING = Look("sharpening", "#e06a1b", "dash", "circle")
_POWER = Look("p^α", "#e06a1b", None, "circle-open", thin=True, named=False)
VOTING = Look("voting", "#8a8a2e", "dot", "square")
_ANSWERS = Look("answer power", "#8a8a2e", "dashdot", "square-open", thin=True)
_REWARD = Look("reward", "#3b82f6", None, "triangle-up")


@dataclass(frozen=True)
class Reached:
    """A policy on the plane.

    name: stands beside its point.
    accuracy: on the test split.
    kl: from the base, in nats a response; NaN where it is not known.
    colour, symbol: of its point, as Plotly has them.
    """

    name: str
    accuracy: Interval
    kl: Interval
    colour: str
    symbol: str = "circle"


def frontier(forecast: Forecast | None, reached: Sequence[Reached], title: str = "", height: int = 400) -> go.Figure:
    """The forecast's paths as lines, as far as the samples support them; policies as points with intervals; all with
    their names beside them.

    forecast: None leaves the lines out.
    reached: the policies. One far beyond the others does not stretch the axis: it is an arrow at its end.
    title: above the figure.
    height: in pixels.
    """
    figure = go.Figure()
    known = [policy for policy in reached if isfinite(policy.kl.value) and isfinite(policy.accuracy.value)]
    paths = _paths(figure, forecast) if forecast is not None else []
    edge = _edge([policy.kl.value for policy in known], max((at.x for path in paths for at in path), default=0.0))
    for policy in known:
        _add_policy(figure, policy, edge)
    left = min([0.0, *(policy.kl.value for policy in known)]) - 0.03 * edge
    figure.update_xaxes(title={"text": "KL from the base, nats a response", "standoff": 6}, range=[left, edge])
    figure.update_yaxes(title={"text": "accuracy", "standoff": 4}, range=_HEIGHT)
    top = 36 if title else 10
    figure = titled(dressed(figure, height).update_layout(margin={"t": top, "b": 44, "l": 8}), title)
    points = [Named(_told(p, edge), min(p.kl.value, edge), p.accuracy.value) for p in known]
    ends = [next((at for at in reversed(path) if at.x <= edge), path[0]) for path in paths]
    if len(points) > 1:  # arms may be called like the lines
        ends = [replace(end, name=f"forecast: {end.name}") for end in ends]
    name_beside(figure, [*points, *ends], edge, _HEIGHT)
    return figure


def _paths(figure: go.Figure, forecast: Forecast) -> list[list[Named]]:
    """Draws the lines; returns the points of those that have a name. Of a forecast without the rank path, as older ones
    are, p^alpha is the sharpening line."""
    ranks, powers = rank_points(forecast), sharpening_path(forecast)
    drawn: list[tuple[Look, Sequence[Point | LinePoint]]] = [
        (_POWER, powers if ranks else ()),
        (SHARPENING, ranks or powers),
        (_ANSWERS, voting_points(forecast)),
        (VOTING, vote_points(forecast)),
        (_REWARD, reward_path(forecast)),
    ]
    named = [_path(figure, points, look) for look, points in drawn]
    return [path for path, (look, _) in zip(named, drawn, strict=True) if path and look.named]


def _edge(kls: Sequence[float], path: float) -> float:
    """Where the x axis ends: past the last of the policies that are not farther out than three times the middle one of
    those that went anywhere; and as far as the paths go, up to there."""
    moved = [kl for kl in kls if kl > 0.05]
    bound = 3 * median(moved) if moved else inf
    last = max([kl for kl in moved if kl <= bound] + [min(path, bound)])
    return 1.06 * last if last > 0 else 1.0


def _told(policy: Reached, edge: float) -> str:
    return policy.name if policy.kl.value <= edge else f"{policy.name}, KL {policy.kl.value:.0f}"


def _add_policy(figure: go.Figure, policy: Reached, edge: float) -> None:
    inside = policy.kl.value <= edge
    figure.add_scatter(
        x=[min(policy.kl.value, edge)],
        y=[policy.accuracy.value],
        customdata=[policy.kl.value],
        error_x=_bar(policy.kl, edge) if inside else None,
        error_y=_bar(policy.accuracy, 1.0),
        mode="markers",
        cliponaxis=False,
        marker={"size": 10, "color": policy.colour, "symbol": policy.symbol if inside else "triangle-right"},
        name=label(policy.name),
        showlegend=False,
        hovertemplate="%{fullData.name}<br>KL %{customdata:.2f} nats<br>accuracy %{y:.3f}<extra></extra>",
    )


def _path(figure: go.Figure, points: Sequence[Point | LinePoint], look: Look) -> list[Named]:
    """Returns the points; none where they are too few to draw."""
    known = [(p, p.kl, p.accuracy) for p in points if p.kl is not None and p.accuracy is not None]
    if len(known) < 2:
        return []
    figure.add_scatter(
        x=[kl.value for _, kl, _ in known],
        y=[accuracy.value for _, _, accuracy in known],
        customdata=[[_said(p, look), a.low, a.high] for p, _, a in known],
        mode="lines+markers",
        line={"color": look.colour, "width": 1 if look.thin else 2.5, "dash": look.dash},
        marker={"size": 6, "symbol": look.symbol},
        name=f"forecast, {look.name}",
        showlegend=False,
        hovertemplate="forecast, %{customdata[0]}<br>KL %{x:.2f} nats<br>accuracy %{y:.3f} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
    )
    return [Named(look.name, kl.value, accuracy.value) for _, kl, accuracy in known]


def _said(point: Point | LinePoint, look: Look) -> str:
    if isinstance(point, Point):
        return f"α {point.alpha:g}" + ("" if point.beta is None else f", β {point.beta:g}")
    return f"{STRENGTHS[look.name]} {point.strength:g}"


def _bar(interval: Interval, most: float) -> Mapping[str, object]:
    """An interval, cut at the end of its axis."""
    return {
        "type": "data",
        "array": [min(interval.high, most) - interval.value],
        "arrayminus": [interval.value - interval.low],
        "thickness": 1.5,
        "width": 4,
    }
