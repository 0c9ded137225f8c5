"""Token by token: responses coloured by how likely the base found them, how often a model leaves its top choice, and in
which part of its responses it goes away from the base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import plotly.graph_objects as go

from tiltlab.report.figures import dressed, label, titled
from tiltlab.stats.metrics import Interval, share_interval
from tiltlab.storage.files import Json

RANKS = {"2nd": (1, 1), "3rd": (2, 2), "4th to 10th": (3, 9), "11th to 100th": (10, 99), "beyond": (100, 10**9)}
PARTS = 10
"""Of a response, of equal numbers of tokens, in which the shift is told."""

_SHADES = ("#fdba74", "#fb923c", "#ea580c", "#b91c1c", "#c026d3")


@dataclass(frozen=True)
class Shown:
    """One token as it is drawn on a page.

    text: that it added to the response.
    likely: 0 (the base is sure of it) to 4.
    shift: -2 (the model finds it far less likely than the base does) to 2 (far likelier).
    title: shown on hover.
    """

    text: str
    likely: int
    shift: int
    title: str


def line_of(lines: Sequence[Json], problem: str) -> Json | None:
    """The line of a problem, None where there is none."""
    return next((line for line in lines if line["problem"] == problem), None)


def shown(line: Json | None) -> list[Shown] | None:
    """The tokens of a line of tokens.jsonl, None where they are not known."""
    if line is None or line["pieces"] is None:
        return None
    columns = zip(line["pieces"], line["logp"], line["ref_logp"], line["ranks"], strict=True)
    return [_shown(*column) for column in columns]


def _shown(text: str, logp: float, ref_logp: float, rank: int) -> Shown:
    likely = sum(exp(ref_logp) < bound for bound in (0.9, 0.5, 0.1, 0.01))
    moved = logp - ref_logp
    shift = sum(moved > bound for bound in (0.2, 1.0)) - sum(moved < -bound for bound in (0.2, 1.0))
    title = f"base: p = {exp(ref_logp):.3g}, choice number {rank + 1}; here: p = {exp(logp):.3g}"
    return Shown(text or "·", likely, shift, title)


def share_off_top(lines: Sequence[Json]) -> Interval | None:
    """Share of positions whose token is not the base's top choice, with an interval over problems."""
    shares = [sum(rank > 0 for rank in line["ranks"]) / len(line["ranks"]) for line in lines]
    return share_interval(shares) if shares else None


def ranks(lines_of: Mapping[str, Sequence[Json]], title: str = "") -> go.Figure:
    """For each model the share of positions at which it leaves the base's top choice, by the token's rank there.

    lines_of: by model, lines of tokens.jsonl.
    title: above the figure.
    """
    figure = go.Figure()
    known = {name: [rank for line in lines for rank in line["ranks"]] for name, lines in lines_of.items() if lines}
    for (name, (low, high)), colour in zip(RANKS.items(), _SHADES, strict=True):
        figure.add_bar(
            y=[label(model) for model in known],
            x=[sum(low <= rank <= high for rank in of) / len(of) for of in known.values()],
            orientation="h",
            name=name,
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.1%} of positions<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title={"text": "share of tokens, by rank", "standoff": 6}, tickformat=".1~%")
    figure.update_yaxes(autorange="reversed")
    figure = dressed(figure, 190 + 26 * max(1, len(known)))
    figure.update_layout(barmode="stack", margin={"b": 125}, legend={"traceorder": "normal"})
    return titled(figure, title)


def moved_by_part(lines: Sequence[Json]) -> list[float]:
    """Where in its responses a model goes away from the base: log pi - log p in nats, by tenths of the response.

    lines: of tokens.jsonl, over which it is the mean.

    All tenths together are the estimate of the KL; a token belongs to the tenth of its middle.
    """
    parts = [0.0] * PARTS
    for line in lines:
        size = len(line["logp"])
        for i, (logp, ref_logp) in enumerate(zip(line["logp"], line["ref_logp"], strict=True)):
            parts[(2 * i + 1) * PARTS // (2 * size)] += (logp - ref_logp) / len(lines)
    return parts


def where(lines_of: Mapping[str, Sequence[Json]], title: str = "") -> go.Figure:
    """`moved_by_part` of each model, as a map.

    lines_of: by model, lines of tokens.jsonl.
    title: above the figure.
    """
    known = {name: moved_by_part(lines) for name, lines in lines_of.items() if lines}
    most = max((abs(value) for parts in known.values() for value in parts), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            x=[str(part + 1) for part in range(PARTS)],
            y=[label(name) for name in known],
            z=list(known.values()),
            zmin=-most,
            zmax=most,
            colorscale=[(0.0, "rgba(234,88,12,0.6)"), (0.5, "rgba(128,128,128,0.08)"), (1.0, "rgba(37,99,235,0.6)")],
            showscale=False,
            texttemplate="%{z:.1f}",
            xgap=2,
            ygap=2,
            hovertemplate="%{y}, tenth number %{x}: %{z:.2f} nats<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "tenth of the response; nats", "standoff": 6}, type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return titled(dressed(figure, 150 + 26 * max(1, len(known))).update_layout(margin={"b": 70}), title)
