"""Accuracy of every arm beside the base's and the best untrained sampler's: the first figure of a study."""

from collections.abc import Sequence
from math import isfinite

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tiltlab.report.figures import bars, dressed, label
from tiltlab.report.load import Study
from tiltlab.report.names import one_line
from tiltlab.report.styles import arm_colours, family, is_trained
from tiltlab.report.tables import Row
from tiltlab.report.text import number


def headline(study: Study, rows: Sequence[Row], tasks: Sequence[str] | None = None) -> go.Figure:
    """Arms by accuracy, the best on top, each point with its name. Circles are trained, diamonds sample the base.

    rows: of the result table.
    tasks: shown side by side; all where left out.
    """
    tasks = tasks or study.tasks
    titles = [label(task) for task in tasks] if len(tasks) > 1 else None
    figure = make_subplots(cols=len(tasks), subplot_titles=titles, horizontal_spacing=0.04)
    for column, task in enumerate(tasks, start=1):
        shown = [row for row in rows if row.task == task and row.which != "best"]
        for row in shown:
            _add_arm(figure, study, row, column)
        _add_references(figure, study, shown, task, column)
        order = [label(row.arm) for row in sorted(shown, key=_height)]
        place = {"row": 1, "col": column}
        figure.update_yaxes(
            categoryorder="array",
            categoryarray=order,
            range=[-0.6, len(order) - 0.4],
            showticklabels=False,
            showgrid=False,
            **place,
        )
        figure.update_xaxes(range=[-0.02, 1.02], title={"text": "accuracy, test split", "standoff": 6}, **place)
    most = max(len(study.on(task)) for task in tasks)
    top = 10 if titles is None else 40
    return dressed(figure, top + 44 + 24 * most).update_layout(margin={"t": top, "b": 44, "l": 8})


def best_sampler(study: Study, rows: Sequence[Row], task: str) -> Row | None:
    """The arm with the highest accuracy of those that sample the untrained base and see no reward; None without one.

    rows: of the result table, of any task.
    """
    samplers = {arm.name for arm in study.on(task) if family(arm.config) == "sampler"}
    known = [row for row in rows if row.task == task and row.arm in samplers and isfinite(row.accuracy.value)]
    return max(known, key=lambda row: row.accuracy.value, default=None)


def _height(row: Row) -> float:
    return row.accuracy.value if isfinite(row.accuracy.value) else -1.0


def _add_arm(figure: go.Figure, study: Study, row: Row, column: int) -> None:
    place = {"row": 1, "col": column}
    figure.add_scatter(
        x=[row.accuracy.value],
        y=[label(row.arm)],
        error_x=bars([row.accuracy]),
        mode="markers",
        cliponaxis=False,
        marker={
            "size": 10,
            "color": arm_colours(study)[row.arm],
            "symbol": "circle" if is_trained(study.configs[row.arm]) else "diamond",
        },
        name=label(row.arm),
        showlegend=False,
        hovertemplate=f"%{{y}}<br>accuracy %{{x:.3f}}<br>{number(row.length.value, 1)} tokens<extra></extra>",
        **place,
    )
    ends = [end for end in (row.accuracy.low, row.accuracy.high, row.accuracy.value) if isfinite(end)] or [0.0]
    on_right = 1 - max(ends) >= min(ends)
    figure.add_annotation(
        x=max(ends) if on_right else min(ends),
        y=label(row.arm),
        text=f"{one_line(row.arm)} <b>{number(row.accuracy.value, 2)}</b>",
        showarrow=False,
        xanchor="left" if on_right else "right",
        xshift=9 if on_right else -9,
        font={"size": 12},
        **place,
    )


def _add_references(figure: go.Figure, study: Study, shown: Sequence[Row], task: str, column: int) -> None:
    """The base as a dotted line, the best untrained sampler as a shaded band."""
    place, base, best = {"row": 1, "col": column}, study.base(task), best_sampler(study, shown, task)
    if best is not None:
        low, high = best.accuracy.low, best.accuracy.high
        ends = (low, high) if isfinite(low) else (best.accuracy.value - 0.005, best.accuracy.value + 0.005)
        fill = {"fillcolor": arm_colours(study)[best.arm], "opacity": 0.18, "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=ends[0], x1=ends[1], **fill, **place)
    for row in (row for row in shown if base and row.arm == base.name):
        if isfinite(row.accuracy.value):  # Plotly would put a line at null somewhere of its own choice
            line = {"dash": "dot", "color": arm_colours(study)[row.arm]}
            figure.add_vline(x=row.accuracy.value, line=line, **place)
