"""What a gain is made of, as bars: parts stacked from 0, negative ones to its left, and each part with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from tiltlab.report.figures import bars, dressed, label, titled
from tiltlab.report.text import signed
from tiltlab.stats.metrics import Interval
from tiltlab.verdict.parts import Parts
from tiltlab.verdict.verdict import Verdict

ROW = 46
"""Height of a bar and its heading, in pixels."""

_GAIN = "the gain"


@dataclass(frozen=True)
class Part:
    """How a part looks, and where its figures stand. pattern: as Plotly has it, so that colour is not all there is."""

    name: str
    colour: str
    pattern: str
    of: str

    def interval(self, parts: Parts) -> Interval:
        """Its figures."""
        interval: Interval = getattr(parts, self.of)
        return interval


PARTS = (
    Part("ends and answers", "#0d9488", "/", "ends"),
    Part("answers where it is read", "#6b9126", "x", "read"),
    Part("sharpened", "#e06a1b", ".", "sharpened"),
    Part("taught", "#3b82f6", "", "taught"),
)
"""In the order in which they are told."""


def parts_of(verdict: Verdict) -> go.Figure | None:
    """A gain and its parts, one under the other, each with its name and figures above it; None where there are none."""
    parts = verdict.parts
    if parts is None:
        return None
    figure = go.Figure()
    figure.add_annotation(_heading(_GAIN, f"{_GAIN}: <b>{signed(verdict.gain.difference)}</b>"))
    for part in PARTS:
        at = part.interval(parts)
        _add_bar(figure, part, [_GAIN], [at])
        known = {"read": parts.read_known, "sharpened": parts.sharpened_known}.get(part.of, True)
        if known:
            _add_bar(figure, part, [part.name], [at], error_x=bars([at]) | {"thickness": 1.5, "color": "#78838f"})
        figure.add_annotation(_heading(part.name, f"{part.name}: <b>{signed(at) if known else 'not told apart'}</b>"))
    return _laid_out(figure, [_GAIN, *(part.name for part in PARTS)], top=6)


def parts_of_arms(verdicts: Mapping[str, Verdict], title: str) -> go.Figure | None:
    """The gains of trained arms, each as one stacked bar under its arm's name; None where no arm has parts.

    title: above the figure.
    """
    known = {arm: verdict.parts for arm, verdict in verdicts.items() if verdict.parts is not None}
    if not known:
        return None
    figure = go.Figure()
    for part in PARTS:
        _add_bar(figure, part, list(known), [part.interval(parts) for parts in known.values()])
    for arm in known:
        gain = verdicts[arm].gain.difference
        figure.add_annotation(_heading(arm, f"{label(arm)}: <b>{signed(gain)}</b>"))
    return titled(_laid_out(figure, list(known), top=36), title)


def _add_bar(figure: go.Figure, part: Part, rows: list[str], values: list[Interval], **more: object) -> None:
    figure.add_bar(
        x=[at.value for at in values],
        y=rows,
        customdata=[[at.low, at.high] for at in values],
        orientation="h",
        width=0.42,
        marker={
            "color": part.colour,
            "pattern": {
                "shape": part.pattern,
                "fgcolor": "white",
                "fgopacity": 0.55,
                "size": 7,
                "solidity": 0.25,
                "fillmode": "overlay",
            },
        },
        name=part.name,
        hovertemplate="%{fullData.name}: %{x:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}]<extra></extra>",
        **more,
    )


def _heading(row: str, text: str) -> dict[str, object]:
    """Above the bar of a row, at the left edge."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": row, "yanchor": "bottom", "yshift": 9}
    return place | {"text": text, "showarrow": False, "font": {"size": 12}}


def _laid_out(figure: go.Figure, rows: list[str], top: int) -> go.Figure:
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=rows[::-1],
        range=[-0.4, len(rows) - 0.25],
        showticklabels=False,
        showgrid=False,
    )
    figure.update_xaxes(title={"text": "accuracy above the base’s", "standoff": 6}, tickformat="+.2~f")
    figure = dressed(figure, ROW * len(rows) + 44 + top).update_layout(
        barmode="relative", margin={"t": top, "b": 44, "l": 8, "r": 8}, showlegend=False
    )
    return figure.update_xaxes(zeroline=True, zerolinecolor="rgba(128,128,128,0.8)", zerolinewidth=1.5)
