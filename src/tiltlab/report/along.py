"""Accuracy along the paths that need no label, for every k, whether or not its KL is known; and where runs stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import plotly.graph_objects as go

from tiltlab.forecast.lines import LinePoint, Lines
from tiltlab.report.figures import bars, dressed, label, titled
from tiltlab.report.frontier import SHARPENING, STRENGTHS, VOTING, Look
from tiltlab.report.names import Named, name_beside
from tiltlab.stats.metrics import Interval

_HEIGHT = (-0.03, 1.03)


@dataclass(frozen=True)
class Standing:
    """A run beside a path of the base.

    name: of the run.
    k: it went as far as the likeliest of so many, or the vote of so many.
    accuracy: its own.
    beyond: whether it went further than the path is known; k is then the last.
    colour, symbol: of its point, as Plotly has them.
    """

    name: str
    k: float
    accuracy: Interval
    beyond: bool
    colour: str
    symbol: str


def along(lines: Lines, runs: Sequence[Standing] = (), title: str = "", height: int = 400) -> go.Figure | None:
    """Accuracy of the likeliest of k and of the vote of k, against k on a logarithmic axis; None where there is none.

    runs: points with their names beside them; of one that went beyond a path, an arrow at its end.
    title: above the figure.
    height: in pixels.
    """
    figure = go.Figure()
    paths = [_path(figure, points, look) for points, look in ((lines.ranks, SHARPENING), (lines.votes, VOTING))]
    paths = [path for path in paths if path]
    if not paths:
        return None
    most = max(path[-1].x for path in paths)
    edge = 1.12 * most
    for run in runs:
        _add_run(figure, run)
    ticks = sorted({at.x for path in paths for at in path})
    figure.update_xaxes(
        type="log",
        range=[log10(0.94), log10(edge)],
        tickvals=ticks,
        ticktext=[f"{k:g}" for k in ticks],
        title={"text": "k: the likeliest of k, or the vote of k", "standoff": 6},
    )
    figure.update_yaxes(title={"text": "accuracy", "standoff": 4}, range=_HEIGHT)
    top = 36 if title else 10
    figure = titled(dressed(figure, height).update_layout(margin={"t": top, "b": 44, "l": 8}), title)
    prefix = "forecast: " if runs else ""
    ends = [Named(prefix + path[-1].name, path[-1].x, path[-1].y) for path in paths]
    points = [Named(run.name, run.k, run.accuracy.value) for run in runs]
    name_beside(figure, [*points, *ends], edge, _HEIGHT)
    return figure


def _path(figure: go.Figure, points: Sequence[LinePoint], look: Look) -> list[Named]:
    """Returns the points; none where they are too few to draw."""
    known = [(point.strength, point.accuracy) for point in points if point.accuracy is not None]
    if len(known) < 2:
        return []
    figure.add_scatter(
        x=[k for k, _ in known],
        y=[accuracy.value for _, accuracy in known],
        customdata=[[accuracy.low, accuracy.high] for _, accuracy in known],
        mode="lines+markers",
        line={"color": look.colour, "width": 2.5, "dash": look.dash},
        marker={"size": 6, "symbol": look.symbol},
        name=look.name,
        showlegend=False,
        hovertemplate=f"forecast, {STRENGTHS[look.name]} %{{x}}<br>"
        "accuracy %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    )
    return [Named(look.name, k, accuracy.value) for k, accuracy in known]


def _add_run(figure: go.Figure, run: Standing) -> None:
    figure.add_scatter(
        x=[run.k],
        y=[run.accuracy.value],
        error_y=bars([run.accuracy]) | {"thickness": 1.5, "width": 4},
        mode="markers",
        cliponaxis=False,
        marker={"size": 10, "color": run.colour, "symbol": "triangle-right" if run.beyond else run.symbol},
        name=label(run.name),
        showlegend=False,
        hovertemplate="%{fullData.name}<br>as far as k = %{x:.3g}<br>accuracy %{y:.3f}<extra></extra>",
    )
