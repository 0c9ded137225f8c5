"""Accuracy against KL from the base: what can be reached, and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.report.figures import dressed, label, titled
from tiltlab.stats.metrics import Interval

_SHARPENING, _REWARD, _BOTH = "#ea580c", "#2563eb", "rgba(128,128,128,0.45)"


@dataclass(frozen=True)
class Reached:
    """A policy on the plane. kl: NaN where it is not known."""

    name: str
    accuracy: Interval
    kl: Interval
    colour: str
    symbol: str = "circle"


def frontier(found: Forecast | None, reached: Sequence[Reached], title: str = "") -> go.Figure:
    """The forecast's paths as lines, as far as the samples carry them; policies as points with intervals."""
    figure = go.Figure()
    if found is not None:
        carried = [point for point in found.points if point.carried]
        for alpha in sorted({point.alpha for point in carried} - {1.0}):
            _path(figure, [p for p in carried if p.alpha == alpha], "both", _BOTH, shown=False)
        _path(figure, [p for p in carried if p.beta is None and p.alpha >= 1], "sharpening: p^α", _SHARPENING)
        rewarded = [p for p in carried if p.alpha == 1]
        _path(figure, rewarded, "reward: p exp(r/β)", _REWARD)
    for policy in reached:
        if policy.kl.value == policy.kl.value:
            figure.add_scatter(
                x=[policy.kl.value],
                y=[policy.accuracy.value],
                error_x=_bar(policy.kl),
                error_y=_bar(policy.accuracy),
                mode="markers",
                cliponaxis=False,
                marker={"size": 11, "color": policy.colour, "symbol": policy.symbol},
                name=label(policy.name),
                showlegend=False,
                hovertemplate="%{fullData.name}<br>KL %{x:.2f} nats<br>accuracy %{y:.3f}<extra></extra>",
            )
    figure.update_xaxes(title={"text": "KL from the base, nats a response", "standoff": 6}, rangemode="tozero")
    figure.update_yaxes(title={"text": "accuracy"}, range=[-0.03, 1.03])
    return titled(dressed(figure, 400).update_layout(margin={"b": 90}), title)


def _path(figure: go.Figure, points: Sequence[Point], name: str, colour: str, *, shown: bool = True) -> None:
    known = [(p, p.kl, p.accuracy) for p in points if p.kl is not None and p.accuracy is not None]
    if len(known) < 2:
        return
    figure.add_scatter(
        x=[kl.value for _, kl, _ in known],
        y=[accuracy.value for _, _, accuracy in known],
        customdata=[[_said(p), a.low, a.high, p.ess] for p, _, a in known],
        mode="lines+markers",
        line={"color": colour, "width": 2.5 if shown else 1},
        marker={"size": 6 if shown else 3},
        name=f"forecast, {name}",
        showlegend=shown,
        hovertemplate="forecast, %{customdata[0]}<br>KL %{x:.2f} nats<br>accuracy %{y:.3f} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<br>ESS %{customdata[3]:.0f} a problem<extra></extra>",
    )


def _said(point: Point) -> str:
    return f"α {point.alpha:g}" + ("" if point.beta is None else f", β {point.beta:g}")


def _bar(interval: Interval) -> Mapping[str, object]:
    return {
        "type": "data",
        "array": [interval.high - interval.value],
        "arrayminus": [interval.value - interval.low],
        "thickness": 1.5,
        "width": 4,
    }
