"""Rows and curves -> Plotly figures. Colours say what an arm has to go on: grey nothing but the base, warm colours its
likelihood, cool ones the reward."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tiltlab.metrics import Interval
from tiltlab.report.load import ArmOnTask, Study
from tiltlab.report.tables import Row, curve_at_k

_PALETTE = {
    "base": ["#6b7280"],
    "temperature": ["#0d9488", "#5eead4"],
    "tempered": ["#f59e0b", "#ea580c", "#fbbf24", "#c2410c"],
    "sharpening": ["#b91c1c", "#ef4444"],
    "task_reward": ["#2563eb", "#60a5fa"],
    "tilted": ["#7c3aed", "#a78bfa", "#5b21b6", "#c4b5fd"],
    "objective": ["#db2777", "#f472b6"],
}
_NULL_CONTROL = "#a3a3a3"

CURVES = (
    ("select", "accuracy", "accuracy, select split"),
    ("metrics", "reward", "reward, training batch"),
    ("metrics", "length", "response length, tokens"),
    ("metrics", "ref_logp", "log p under the base, nats a response"),
    ("metrics", "kl", "KL from the base, nats a response"),
    ("metrics", "entropy", "entropy, nats a token"),
)
"""(file, key, title) of the learning curves."""


def headline(study: Study, rows: Sequence[Row]) -> go.Figure:
    """Accuracy of every arm on every task, with its interval, beside the base's."""
    tasks = study.tasks
    figure = make_subplots(cols=len(tasks), shared_yaxes=True, subplot_titles=tasks, horizontal_spacing=0.04)
    colours = arm_colours(study)
    for column, task in enumerate(tasks, start=1):
        shown = [row for row in rows if row.task == task and row.which != "best"]
        for row in shown:
            figure.add_scatter(
                x=[row.accuracy.value],
                y=[row.arm],
                error_x=_bars([row.accuracy]),
                mode="markers",
                marker={"size": 11, "color": colours[row.arm]},
                name=row.arm,
                showlegend=False,
                hovertemplate=f"{row.arm}<br>accuracy %{{x:.3f}}<br>{row.length.value:.1f} tokens<extra></extra>",
                row=1,
                col=column,
            )
        base = next((row for row in shown if row.arm == "base"), None)
        if base:
            figure.add_vline(x=base.accuracy.value, line={"dash": "dot", "color": colours["base"]}, row=1, col=column)
        figure.update_xaxes(range=[-0.02, 1.02], title="accuracy, test split", row=1, col=column)
    names = list(dict.fromkeys(row.arm for row in rows))
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return dressed(figure, 130 + 32 * len(names)).update_layout(margin={"b": 50})


def learning_curves(study: Study, task: str) -> go.Figure:
    """Every trained arm through its training; of several seeds the mean, and a band from the lowest to the highest."""
    columns = 3
    figure = make_subplots(
        rows=2,
        cols=columns,
        subplot_titles=[title for *_, title in CURVES],
        horizontal_spacing=0.07,
        vertical_spacing=0.16,
    )
    colours = arm_colours(study)
    for arm in (arm for arm in study.on(task) if arm.trained):
        for i, (file, key, _) in enumerate(CURVES):
            place = {"row": i // columns + 1, "col": i % columns + 1}
            steps, mean, low, high = _over_seeds(arm, file, key)
            if len(arm.seeds) > 1:
                band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
                figure.add_scatter(x=steps, y=low, legendgroup=arm.name, **band, **place)
                fill = _faint(colours[arm.name])
                figure.add_scatter(
                    x=steps, y=high, legendgroup=arm.name, fill="tonexty", fillcolor=fill, **band, **place
                )
            figure.add_scatter(
                x=steps,
                y=mean,
                mode="lines+markers" if file == "select" else "lines",
                line={"color": colours[arm.name], "width": 2},
                name=arm.name,
                legendgroup=arm.name,
                showlegend=i == 0,
                **place,
            )
    return dressed(figure, 620)


def at_k_curves(study: Study, task: str) -> go.Figure:
    """pass@k and maj@k of every arm, last checkpoints, with their intervals over problems on hover."""
    figure = make_subplots(cols=2, subplot_titles=["pass@k", "maj@k"], shared_yaxes=True, horizontal_spacing=0.04)
    colours = arm_colours(study)
    for arm in study.on(task):
        for column, kind in enumerate(("pass", "maj"), start=1):
            curve = curve_at_k(arm, "last", kind)
            figure.add_scatter(
                x=[k for k, _ in curve],
                y=[interval.value for _, interval in curve],
                customdata=[[interval.low, interval.high] for _, interval in curve],
                hovertemplate="k=%{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
                mode="lines+markers",
                line={"color": colours[arm.name], "width": 2},
                marker={"size": 5},
                name=arm.name,
                legendgroup=arm.name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
            figure.update_xaxes(type="log", dtick=0.30103, title="k", row=1, col=column)  # a tick for each doubling
    figure.update_yaxes(range=[-0.02, 1.02])
    return dressed(figure, 400)


def arm_colours(study: Study) -> dict[str, str]:
    """A colour for each arm by name, the same in every figure of a study."""
    used: dict[str, int] = {}
    colours = {}
    for arm in study.arms:
        if arm.name in colours:
            continue
        kind = arm.config["arm"]
        if kind == "tempered" and arm.config["alpha"] == 1:
            colours[arm.name] = _NULL_CONTROL
            continue
        shades = _PALETTE[kind]
        colours[arm.name] = shades[used.get(kind, 0) % len(shades)]
        used[kind] = used.get(kind, 0) + 1
    return colours


def _over_seeds(arm: ArmOnTask, file: str, key: str) -> tuple[list[int], list[float], list[float], list[float]]:
    lines = [getattr(seeded, file) for seeded in arm.seeds]
    length = min(map(len, lines))
    values = [[line[key] for line in seed[:length]] for seed in lines]
    columns = list(zip(*values, strict=True))
    steps = [line["step"] + (file == "metrics") for line in lines[0][:length]]
    return steps, [sum(c) / len(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]


def _bars(intervals: Sequence[Interval]) -> dict[str, Any]:
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
    """Ink and background are left to the page, which knows whether it is light or dark."""
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
        .update_yaxes(automargin=True, gridcolor="rgba(128,128,128,0.2)", zeroline=False)
        .update_xaxes(gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    )
