"""Accuracy against KL from the base: what can be reached, and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import median

import plotly.graph_objects as go

from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.report.figures import dressed, label, titled
from tiltlab.report.names import Named, name_beside
from tiltlab.stats.metrics import Interval

_SHARPENING, _REWARD, _BOTH = "#e06a1b", "#3b82f6", "rgba(128,128,128,0.45)"
_HEIGHT = (-0.03, 1.03)


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
    name_beside(figure, [*points, *ends], edge, _HEIGHT)
    return figure


def _paths(figure: go.Figure, forecast: Forecast) -> list[list[Named]]:
    """Draws the paths; returns the points of those that have a name."""
    supported = [point for point in forecast.points if point.supported]
    for alpha in sorted({point.alpha for point in supported} - {1.0}):
        _path(figure, [p for p in supported if p.alpha == alpha], "both", (_BOTH, None), thin=True)
    sharpened = [p for p in supported if p.beta is None and p.alpha >= 1]
    rewarded = [p for p in supported if p.alpha == 1]
    paths = [
        _path(figure, sharpened, "sharpening: p^α", (_SHARPENING, "dash")),
        _path(figure, rewarded, "reward: p exp(r/β)", (_REWARD, None)),
    ]
    return [path for path in paths if path]


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


def _path(
    figure: go.Figure, points: Sequence[Point], name: str, look: tuple[str, str | None], *, thin: bool = False
) -> list[Named]:
    """`look`: colour and dash. Returns the points; none where they are too few to draw."""
    known = [(p, p.kl, p.accuracy) for p in points if p.kl is not None and p.accuracy is not None]
    if len(known) < 2:
        return []
    colour, dash = look
    figure.add_scatter(
        x=[kl.value for _, kl, _ in known],
        y=[accuracy.value for _, _, accuracy in known],
        customdata=[[_said(p), a.low, a.high, p.ess] for p, _, a in known],
        mode="lines" if thin else "lines+markers",
        line={"color": colour, "width": 1 if thin else 2.5, "dash": dash},
        marker={"size": 4},
        name=f"forecast, {name}",
        showlegend=False,
        hovertemplate="forecast, %{customdata[0]}<br>KL %{x:.2f} nats<br>accuracy %{y:.3f} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<br>ESS %{customdata[3]:.0f} a problem<extra></extra>",
    )
    return [Named(f"forecast: {name.partition(':')[0]}", kl.value, accuracy.value) for _, kl, accuracy in known]


def _said(point: Point) -> str:
    return f"α {point.alpha:g}" + ("" if point.beta is None else f", β {point.beta:g}")


def _bar(interval: Interval, most: float) -> Mapping[str, object]:
    """An interval, cut at the end of its axis."""
    return {
        "type": "data",
        "array": [min(interval.high, most) - interval.value],
        "arrayminus": [interval.value - interval.low],
        "thickness": 1.5,
        "width": 4,
    }
