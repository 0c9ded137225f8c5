"""Rows and curves -> Plotly figures."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tiltlab.report.alarms import ON_CURVE, FiredAlarm
from tiltlab.report.load import ArmOnTask, Failure, Seeded, Study
from tiltlab.report.names import Named, name_beside
from tiltlab.report.styles import arm_colours, arm_dashes, arm_symbols, is_trained
from tiltlab.report.tables import Row, curve_at_k
from tiltlab.stats.metrics import Interval
from tiltlab.stats.votes import Floats
from tiltlab.storage.files import Json

Curve = tuple[str, str, str]
"""File, key and title of a learning curve."""

CURVES: tuple[Curve, ...] = (
    ("validation", "accuracy", "accuracy, validation split"),
    ("metrics", "reward", "reward, training batch"),
    ("metrics", "length", "response length, tokens"),
    ("metrics", "ref_logp", "log p under the base, nats a response"),
    ("metrics", "kl", "KL from the base, nats a response"),
    ("metrics", "entropy", "entropy, nats a token"),
)

OF_DRAWING: tuple[Curve, ...] = (
    ("metrics", "mismatch_mean", "sampler and trainer apart, nats a token"),
    ("metrics", "ess", "effective share of the responses"),
    ("metrics", "kl_sampler", "KL of the sampler from the policy, nats a response"),
)

ROUNDED = 0.99
"""Effective share of a step's responses from which on what drew them is the policy but for a little rounding."""


def curves_of(study: Study) -> tuple[Curve, ...]:
    """The learning curves of a study: with those of drawing, where in any step that mattered."""
    runs = (seeded.metrics for arm in study.arms for seeded in arm.seeds)
    shares = (line.get("ess") for lines in (*runs, *(job.metrics for job in study.failed)) for line in lines)
    return CURVES + OF_DRAWING * any(share is not None and share < ROUNDED for share in shares)


def learning_curves(
    study: Study, task: str, curves: Sequence[Curve] = CURVES, fired: Sequence[FiredAlarm] = ()
) -> go.Figure:
    """Every trained arm through its training; of several seeds the mean, and a band from the lowest to the highest.

    curves: what is shown, one subplot each. A single one has no legend: the page has one for all.
    fired: alarms, each marked by a triangle on the curve that shows it.

    A job that failed is dashed, up to there.
    """
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[title for *_, title in curves],
        horizontal_spacing=0.07,
        vertical_spacing=0.16,
    )
    colours, dashes = arm_colours(study), arm_dashes(study)
    for i, curve in enumerate(curves):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for arm in (arm for arm in study.on(task) if arm.trained):
            _add_curve(figure, arm, curve, (colours[arm.name], dashes[arm.name]), i == 0 and len(curves) > 1, place)
            _add_alarms(figure, arm.name, arm.seeds, curve, colours[arm.name], fired, place)
        for failure in (failure for failure in study.failed if failure.task == task):
            _add_failed(figure, failure, curve, colours[failure.arm], place)
            _add_alarms(figure, failure.arm, [failure], curve, colours[failure.arm], fired, place)
    return dressed(figure, 120 + 250 * rows) if len(curves) > 1 else small(figure, "step", 260)


def cost(study: Study, rows: Sequence[Row], task: str) -> go.Figure:
    """Accuracy against the tokens that a response took: what drawing costs, training aside.

    rows: of the result table, of any task.
    """
    figure = make_subplots(subplot_titles=[label(task)])
    colours, height = arm_colours(study), (-0.02, 1.02)
    shown = [row for row in rows if row.task == task and row.which != "best"]
    for row in shown:
        figure.add_scatter(
            x=[row.tokens_used],
            y=[row.accuracy.value],
            error_y=bars([row.accuracy]),
            mode="markers",
            cliponaxis=False,
            marker={
                "size": 10,
                "color": colours[row.arm],
                "symbol": "circle" if is_trained(study.configs[row.arm]) else "diamond",
            },
            name=label(row.arm),
            showlegend=False,
            hovertemplate="%{x:.1f} tokens a response<br>accuracy %{y:.3f}",
        )
    known = [Named(row.arm, row.tokens_used, row.accuracy.value) for row in shown if row.tokens_used > 0]
    known = [point for point in known if isfinite(point.x) and isfinite(point.y)]
    least, most = min((p.x for p in known), default=1.0) / 1.3, max((p.x for p in known), default=10.0) * 1.2
    ticks = log_ticks(least, most)
    figure.update_xaxes(
        type="log", range=[log10(least), log10(most)], tickvals=ticks, ticktext=[f"{t:g}" for t in ticks]
    )
    figure.update_yaxes(range=height, title={"text": "accuracy"})
    figure = small(figure, "tokens used a response", 380)
    name_beside(figure, known, most, height)
    return figure


def log_ticks(least: float, most: float) -> list[float]:
    """The numbers 1, 2, 5, 10, 20 ... from `least` to `most`, both above 0."""
    powers = range(floor(log10(least)), ceil(log10(most)) + 1)
    return [
        tick for power in powers for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if least <= tick <= most
    ]


def at_k_curve(study: Study, task: str, kind: str) -> go.Figure:
    """pass@k or maj@k of every arm, last checkpoints, with their intervals over problems on hover.

    kind: "pass" or "maj".
    """
    figure = make_subplots(subplot_titles=[f"{kind}@k"])
    colours, dashes, symbols = arm_colours(study), arm_dashes(study), arm_symbols(study)
    for arm in study.on(task):
        curve = curve_at_k(arm, "last", kind)
        figure.add_scatter(
            x=[k for k, _ in curve],
            y=[interval.value for _, interval in curve],
            customdata=[[interval.low, interval.high] for _, interval in curve],
            hovertemplate="k=%{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            mode="lines+markers",
            line={"color": colours[arm.name], "width": 2, "dash": dashes[arm.name]},
            marker={"size": 7, "symbol": symbols[arm.name]},
            name=label(arm.name),
            legendgroup=arm.name,
            showlegend=False,
        )
    figure.update_xaxes(type="log", dtick=0.30103)  # a tick for each doubling
    figure.update_yaxes(range=[-0.02, 1.02])
    return small(figure, "k", 340)


def label(name: str) -> str:
    """A name as Plotly shows it: its own little markup escaped, and in lines that leave a phone's screen some room."""
    return "<br>".join(escape(line, quote=False) for line in wrap(name, 24)) or " "


def _add_curve(
    figure: go.Figure,
    arm: ArmOnTask,
    curve: Curve,
    look: tuple[str, str | None],
    legend: bool,
    place: dict[str, int],
) -> None:
    """`look`: colour and dash."""
    file, key, _ = curve
    colour, dash = look
    steps, values = by_step([getattr(seeded, file) for seeded in arm.seeds], file, key)
    if len(arm.seeds) > 1:
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=steps, y=values.min(1), legendgroup=arm.name, **band, **place)
        fill = {"fill": "tonexty", "fillcolor": _faint(colour)}
        figure.add_scatter(x=steps, y=values.max(1), legendgroup=arm.name, **fill, **band, **place)
    figure.add_scatter(
        x=steps,
        y=values.mean(1),
        mode="lines+markers" if file == "validation" else "lines",
        line={"color": colour, "width": 2, "dash": dash},
        name=label(arm.name),
        legendgroup=arm.name,
        showlegend=legend,
        **place,
    )


def _add_alarms(
    figure: go.Figure,
    arm: str,
    runs: Sequence[Seeded | Failure],
    curve: Curve,
    colour: str,
    fired: Sequence[FiredAlarm],
    place: dict[str, int],
) -> None:
    """Where an arm's alarms fired, on the curve that shows it (of the seed that it fired in)."""
    file, key, _ = curve
    lines = {run.seed: {line["step"] + (file == "metrics"): line for line in getattr(run, file)} for run in runs}
    mine = [one for one in fired if one.arm == arm and ON_CURVE[one.alarm.kind] == key and one.seed in lines]
    known = [(one, lines[one.seed][one.alarm.step].get(key)) for one in mine if one.alarm.step in lines[one.seed]]
    if known:
        figure.add_scatter(
            x=[one.alarm.step for one, _ in known],
            y=[value for _, value in known],
            text=[label(str(one.alarm)) for one, _ in known],
            mode="markers",
            cliponaxis=False,
            marker={"symbol": "triangle-up", "size": 12, "color": colour, "line": {"width": 1.5, "color": "#dc2626"}},
            name=label(arm),
            legendgroup=arm,
            showlegend=False,
            hovertemplate="%{text}",
            **place,
        )


def _add_failed(figure: go.Figure, failure: Failure, curve: Curve, colour: str, place: dict[str, int]) -> None:
    file, key, _ = curve
    steps, values = by_step([getattr(failure, file)], file, key)
    figure.add_scatter(
        x=steps,
        y=values[:, 0],
        mode="lines",
        line={"color": colour, "width": 2, "dash": "dash"},
        name=label(f"{failure.arm}, seed {failure.seed}, failed"),
        legendgroup=failure.arm,
        showlegend=False,
        **place,
    )


def by_step(lines: Sequence[Sequence[Json]], file: str, key: str) -> tuple[list[int], Floats]:
    """Steps done, as far as all seeds went, and the seeds' values: float [step, seed], NaN where there is none.

    lines: of each seed.
    file: "metrics" or "validation", which the lines are of: the first counts a step from 0, the second when it is done.
    key: of the figure.
    """
    columns = list(zip(*lines, strict=False))
    steps = [column[0]["step"] + (file == "metrics") for column in columns]
    values = np.array([[line.get(key) for line in column] for column in columns], dtype=float)
    return steps, values.reshape(len(steps), len(lines))


def bars(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Intervals as the error bars of a trace."""
    return {
        "type": "data",
        "array": [interval.high - interval.value for interval in intervals],
        "arrayminus": [interval.value - interval.low for interval in intervals],
        "thickness": 2,
        "width": 5,
    }


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def dressed(figure: go.Figure, height: int) -> go.Figure:
    """A figure with fonts, grid and margins as all have them.

    height: in pixels.

    Ink and background are left to the page, which knows whether it is light or dark.
    """
    return (
        figure.update_layout(
            template="none",
            height=height,
            margin={"l": 10, "r": 10, "t": 40, "b": 80},
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            font={"family": "system-ui, sans-serif", "size": 13},
            legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0},
            hoverlabel={"namelength": -1},
        )
        .update_yaxes(automargin=True, gridcolor="rgba(128,128,128,0.2)", zeroline=False, title_font_size=13)
        .update_xaxes(gridcolor="rgba(128,128,128,0.2)", zeroline=False, title_font_size=13)
    )


def titled(figure: go.Figure, title: str) -> go.Figure:
    """A figure with a title above all of it; as it is where the title is empty."""
    return figure.update_layout(title={"text": label(title), "x": 0.5, "font": {"size": 16}}) if title else figure


def small(figure: go.Figure, across: str, height: int) -> go.Figure:
    """A figure that is one of several in a grid, whose legend is the page's.

    across: title of the x axis.
    height: in pixels.
    """
    figure.update_xaxes(title={"text": across, "standoff": 6})
    return dressed(figure, height).update_layout(margin={"t": 36, "b": 44})
