"""A verdict as one HTML page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from tiltlab.errors import UserError
from tiltlab.forecast.forecast import Forecast, base_forecast
from tiltlab.report.figures import dressed
from tiltlab.report.forecast import in_words, lines_in_words
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.html import render_page
from tiltlab.report.outcome import called, followed_rows, tax_in_words
from tiltlab.report.parts import parts_of
from tiltlab.report.tokens import Shown, line_of, ranks, share_off_top, shown, where
from tiltlab.stats.by_problem import accuracy, by_problem
from tiltlab.stats.metrics import Interval, mean_interval, share_interval
from tiltlab.storage.files import Json, write_text
from tiltlab.types import Record
from tiltlab.verdict.verdict import Verdict

_BASE, _TUNED, _SHARPENED = "#78838f", "#8b6cf0", "#e06a1b"

SAMPLES = 6
"""Problems whose responses are shown side by side."""


def write_verdict_page(
    verdict: Verdict,
    base: Sequence[Record],
    tuned: Sequence[Record],
    tokens: Mapping[str, Sequence[Json]],
    questions: Mapping[str, str],
    made: Mapping[str, Any],
    path: Path,
    powers: Mapping[str, tuple[Sequence[Record], Sequence[float]]] | None = None,
) -> None:
    """Write the page.

    base, tuned: records of the two.
    tokens: of "base" and "tuned", lines of tokens.jsonl; none where nobody knows them.
    questions: by problem id, for those that are known.
    made: how (tiltlab.system.provenance).
    powers: by name, the base sharpened by a sampler, and the KL of its distribution by problem, in nats.
    """
    told = _forecast(base)
    sharpened = [
        Reached(name, accuracy_of(records), mean_interval(kls), _SHARPENED, "diamond")
        for name, (records, kls) in (powers or {}).items()
    ]
    figures = {
        "frontier": frontier(told, [*sharpened, *_reached(verdict, tuned)], "Accuracy against KL"),
        "pass": _pass(verdict),
        **({"parts": made_of} if (made_of := parts_of(verdict)) else {}),
        "likelihood": _spread(base, tuned, lambda r: r.ref_logp, "log p under the base, nats"),
        "length": _spread(base, tuned, lambda r: float(r.tokens or "nan"), "tokens a response"),
    }
    off_top = {side: share_off_top(tokens.get(side, ())) for side in ("base", "tuned")}
    if any(off_top.values()):
        figures["ranks"] = ranks(tokens)
        figures["where"] = where({"tuned": tokens.get("tuned", ())})
    page = render_page(
        "verdict.html.j2",
        figures,
        verdict=verdict,
        called=called(verdict),
        tax=tax_in_words(verdict),
        followed=followed_rows(verdict),
        samples=_samples(base, tuned, tokens, questions),
        off_top=off_top,
        made=made,
        told=in_words(told) if told else None,
        lines_in_words=lines_in_words(told),
        sharpened=bool(sharpened),
    )
    write_text(path, page)


def _samples(
    base: Sequence[Record],
    tuned: Sequence[Record],
    tokens: Mapping[str, Sequence[Json]],
    questions: Mapping[str, str],
) -> list[tuple[str, list[tuple[str, Any, Any]]]]:
    """The first response of either model to the first problems, by question, with its token line."""
    return [
        (
            questions.get(name, name),
            [
                (side, _first(records, name), _tokens(tokens.get(side, ()), name))
                for side, records in (("base", base), ("tuned", tuned))
            ],
        )
        for name in list(dict.fromkeys(record.problem for record in tuned))[:SAMPLES]
    ]


def accuracy_of(records: Sequence[Record]) -> Interval:
    """Accuracy of records of one task, with its interval over problems."""
    return share_interval([accuracy(group) for group in by_problem(records).values()])


def _forecast(base: Sequence[Record]) -> Forecast | None:
    try:
        return base_forecast(base)
    except UserError:
        return None


def _reached(verdict: Verdict, tuned: Sequence[Record]) -> list[Reached]:
    groups = by_problem(record for record in tuned if record.complete)
    kl = mean_interval([sum(r.logp - r.ref_logp for r in group) / len(group) for group in groups.values()])
    nowhere = Interval(0.0, 0.0, 0.0)
    return [Reached("base", verdict.gain.a, nowhere, _BASE, "diamond"), Reached("tuned", verdict.gain.b, kl, _TUNED)]


def _pass(verdict: Verdict) -> go.Figure:
    figure = go.Figure()
    ks = list(verdict.solved_problems.pass_k)
    for i, (name, colour) in enumerate((("base", _BASE), ("tuned", _TUNED))):
        curve = [verdict.solved_problems.pass_k[k][i] for k in ks]
        figure.add_scatter(
            x=ks,
            y=[at.value for at in curve],
            customdata=[[at.low, at.high] for at in curve],
            hovertemplate="k=%{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "dot" if name == "base" else None},
            name=name,
        )
    figure.update_xaxes(type="log", dtick=0.30103, title={"text": "k", "standoff": 6})
    figure.update_yaxes(range=[-0.02, 1.02], title={"text": "pass@k"})
    return dressed(figure, 360)


def _spread(base: Sequence[Record], tuned: Sequence[Record], value: Any, title: str) -> go.Figure:
    """One quantity of complete responses, correct and wrong, of both models."""
    figure = go.Figure()
    for name, records, colour in (("base", base, _BASE), ("tuned", tuned, _TUNED)):
        for reason in ("correct", "wrong"):
            chosen = [value(record) for record in records if record.complete and record.reason == reason]
            figure.add_box(x=chosen, y=[f"{name}, {reason}"] * len(chosen), marker_color=colour, boxpoints=False)
    figure.update_traces(orientation="h", showlegend=False, hoverinfo="x")
    figure.update_xaxes(title={"text": title, "standoff": 6})
    figure.update_yaxes(autorange="reversed")
    return dressed(figure, 300).update_layout(margin={"b": 50})


def _tokens(lines: Sequence[Json], problem: str) -> list[Shown] | None:
    return shown(line_of(lines, problem))


def _first(records: Sequence[Record], problem: str) -> Record | None:
    return next((record for record in records if record.problem == problem), None)
