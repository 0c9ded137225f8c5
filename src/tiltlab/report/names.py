"""Names on points: beside a figure, in the order of the points' heights, each tied to its point by a thin line. So they
can be read where points lie on top of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

import plotly.graph_objects as go

LINE = 15
"""Height of a name, in pixels."""

_LONGEST = 26
_FINE = "rgba(128,128,128,0.55)"


@dataclass(frozen=True)
class Named:
    """A point and what it is called.

    name: stands beside it.
    x, y: in the units of the axes.
    """

    name: str
    x: float
    y: float


def name_beside(figure: go.Figure, points: Sequence[Named], edge: float, y: tuple[float, float]) -> None:
    """Name points beside a figure, to its right. The right margin is made wide enough.

    figure: its height and margins must be set.
    edge: the end of the x axis.
    y: the ends of the y axis.
    """
    if not points:
        return
    margin = figure.layout.margin
    plot = figure.layout.height - margin.t - margin.b
    told = [one_line(point.name) for point in points]
    places = spread([point.y for point in points], LINE * (y[1] - y[0]) / plot, *y)
    log = figure.layout.xaxis.type == "log"
    at = log10 if log else float
    first, last = figure.layout.xaxis.range
    beyond = at(edge) + 0.025 * (last - first)
    for point, text, place in zip(points, told, places, strict=True):
        figure.add_annotation(
            {"x": at(point.x), "y": point.y, "text": text, "xanchor": "left", "showarrow": True, "arrowhead": 0},
            ax=beyond,
            ay=place,
            axref="x",
            ayref="y",
            arrowwidth=1,
            arrowcolor=_FINE,
            standoff=6,
            font={"size": 11},
            borderpad=0,
        )
    figure.update_layout(margin={"r": 42 + 6 * max(len(point.name[:_LONGEST]) for point in points)})


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """A place for each value, near it and in the order of the values.

    gap: between two places, or less where there is no room.
    low, high: between which all places are.
    """
    gap = min(gap, (high - low) / max(1, len(values) - 1))
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [values[i] for i in order]
    for i, place in enumerate(places):
        places[i] = max(place, low if i == 0 else places[i - 1] + gap)
    top = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    return [place for _, place in sorted(zip(order, places, strict=True))]


def one_line(name: str) -> str:
    """A name as Plotly shows it, its own little markup escaped. Of a long one the middle is left out: names of one page
    often begin alike, and end with the run or with a figure."""
    half = _LONGEST // 2
    shown = name if len(name) <= _LONGEST else f"{name[: half - 1]}…{name[-half:]}"
    return escape(shown, quote=False) or " "
