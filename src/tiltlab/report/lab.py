"""The lab's results as a page: five pictures of what theory demands, each beside what summing or training gave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tiltlab.report.figures import dressed
from tiltlab.report.html import render_page
from tiltlab.storage.files import write_text

_WARM = ["#6b7280", "#fbbf24", "#f59e0b", "#ea580c", "#b91c1c", "#7f1d1d"]
_BLUE, _VIOLET, _RED, _TEAL = "#2563eb", "#7c3aed", "#b91c1c", "#0d9488"

Results = Mapping[str, Any]
"""lab.lab.Lab as plain values (dataclasses.asdict), plus "wrong": seeds that committed wrongly, by batch size."""


def write_lab_page(results: Results, made: Mapping[str, Any], path: Path) -> None:
    """Write the page. Raises UserError where it cannot be written.

    results: of the lab.
    made: how (tiltlab.system.provenance).
    """
    figures = {
        "length": _length(results["length_bias"]),
        "colder": _colder(results["two_lengths"]),
        "helps": _helps(results["helps"]),
        "reward": _reward(results["reward_path"]),
        "commitment": _commitment(results["commitment"], results["wrong"]),
        "paths": _paths(results["commitment"]),
    }
    write_text(path, render_page("lab.html.j2", figures, results=results, made=made))


def _length(results: Results) -> go.Figure:
    figure = go.Figure()
    for i, alpha in enumerate(results["alphas"]):
        figure.add_bar(
            x=results["lengths"],
            y=results["enumerated"][i],
            name=f"alpha {alpha:g}",
            marker_color=_WARM[i % len(_WARM)],
        )
    for i, alpha in enumerate(results["alphas"]):
        figure.add_scatter(
            x=[
                length + (i - (len(results["alphas"]) - 1) / 2) * 0.8 / len(results["alphas"])
                for length in results["lengths"]
            ],
            y=results["formula"][i],
            mode="markers",
            marker={"color": "#9ca3af", "symbol": "line-ew-open", "size": 11, "line": {"width": 2}},
            name="formula",
            showlegend=i == 0,
            hovertemplate=f"formula, alpha {alpha:g}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.2)
    figure.update_xaxes(title="length of the response, tokens")
    figure.update_yaxes(title="probability")
    return dressed(figure, 380)


def _colder(results: Results) -> go.Figure:
    figure = go.Figure()
    for key, name, colour in (("power", "p^alpha", _RED), ("temperature", "temperature 1/alpha a token", _TEAL)):
        figure.add_scatter(x=results["alphas"], y=results[key], name=name, line={"color": colour, "width": 3})
    figure.update_xaxes(title="alpha")
    figure.update_yaxes(title="mean length, tokens", rangemode="tozero")
    return dressed(figure, 340)


def _helps(results: Results) -> go.Figure:
    figure = go.Figure()
    kinds = (("with", "right answers lean to likely responses", _BLUE), ("against", "to unlikely ones", _RED))
    for key, name, colour in kinds:
        accuracy, slope = results[f"{key}_likelihood"], results[f"slope_{key}"]
        label = f"{name} (slope at 1: {slope:+.2f})"
        figure.add_scatter(x=results["alphas"], y=accuracy, name=label, line={"color": colour, "width": 3})
        tangent = [1.0, 1.25]
        drawn = [accuracy[0] + slope * (alpha - 1) for alpha in tangent]
        dotted = {"color": colour, "width": 2, "dash": "dot"}
        figure.add_scatter(x=tangent, y=drawn, mode="lines", line=dotted, showlegend=False, hoverinfo="skip")
    figure.update_xaxes(title="alpha")
    figure.update_yaxes(title="accuracy under p^alpha", range=[0, 1])
    return dressed(figure, 340)


def _reward(results: Results) -> go.Figure:
    figure = make_subplots(cols=2, horizontal_spacing=0.1)
    inverse = [1 / beta for beta in results["betas"]]
    line = {"color": _VIOLET, "width": 3}
    figure.add_scatter(x=inverse, y=results["formula"], name="closed form", line=line, row=1, col=1)
    exact = {"symbol": "circle-open", "size": 13, "color": _BLUE, "line": {"width": 2}}
    figure.add_scatter(x=inverse, y=results["enumerated"], name="summed", mode="markers", marker=exact, row=1, col=1)
    trained = {"symbol": "x", "size": 9, "color": _RED}
    figure.add_scatter(x=inverse, y=results["trained"], name="trained", mode="markers", marker=trained, row=1, col=1)
    figure.add_scatter(x=results["kl"], y=results["trained"], line=line, showlegend=False, row=1, col=2)
    figure.update_xaxes(title="1 / beta", row=1, col=1)
    figure.update_xaxes(title="KL of the trained policy from the base, nats", row=1, col=2)
    figure.update_yaxes(title="accuracy", range=[0, 1.03])
    return dressed(figure, 380)


def _commitment(results: Results, wrong: list[int]) -> go.Figure:
    titles = ["sharpening: ended on a wrong response", "tempered 4: distance to its optimum"]
    figure = make_subplots(cols=2, horizontal_spacing=0.1, subplot_titles=titles)
    batches = [str(batch) for batch in results["batches"]]
    seeds = len(results["on_mode"][0])
    share = [count / seeds for count in wrong]
    text = [f"{count} of {seeds}" for count in wrong]
    figure.add_bar(x=batches, y=share, text=text, marker_color=_RED, showlegend=False, row=1, col=1)
    for batch, distances in zip(batches, results["tempered_distance"], strict=True):
        figure.add_box(y=distances, x=[batch] * seeds, marker_color=_TEAL, showlegend=False, row=1, col=2)
    figure.update_xaxes(title="responses a batch", type="category")
    figure.update_yaxes(title="share of seeds", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title="total variation", range=[0, 1], row=1, col=2)
    return dressed(figure, 400)


def _paths(results: Results) -> go.Figure:
    shown = [0, len(results["batches"]) // 2, len(results["batches"]) - 1]
    titles = [f"{results['batches'][i]} responses a batch" for i in shown]
    figure = make_subplots(cols=len(shown), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    for column, i in enumerate(shown, start=1):
        path = results["path"][i]
        steps = [results["every"] * j for j in range(len(path))]
        for seed in range(len(path[0])):
            masses = [masses[seed] for masses in path]
            colour = _BLUE if masses[-1] > 0.5 else _RED
            line = {"color": colour, "width": 1}
            figure.add_scatter(x=steps, y=masses, mode="lines", line=line, showlegend=False, row=1, col=column)
        figure.update_xaxes(title="step", row=1, col=column)
    figure.update_yaxes(title="mass on the likeliest response", range=[0, 1.02], row=1, col=1)
    return dressed(figure, 360)
