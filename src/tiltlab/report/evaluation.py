"""One evaluation, a folder with records.jsonl and sample.json, as tables and one HTML page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import yaml

from tiltlab.errors import UserError
from tiltlab.report.figures import dressed
from tiltlab.report.html import render_page
from tiltlab.report.tokens import line_of, shown
from tiltlab.stats.by_problem import by_problem, correct, graded
from tiltlab.stats.metrics import Interval, averages, majorities, mean_interval, pass_at_k, share_interval
from tiltlab.stats.paired import Stratum, by_length, never_limit
from tiltlab.storage.files import Json, require_end, write_text
from tiltlab.storage.records import read_records
from tiltlab.storage.shaped import or_else, read_shaped, read_shaped_lines
from tiltlab.storage.shapes import Sample, TokenLine
from tiltlab.types import Record

SAMPLES = 8
"""Problems whose responses are shown, four each."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one evaluation. Intervals are over problems, 95 %.

    name: of its folder.
    problems: how many.
    n: the fewest graded responses of a problem.
    accuracy: over graded responses.
    pass_k, maj_k: by k, for k = 1, 2, 4, ... and n.
    length: of a response, in tokens.
    truncated: share of responses.
    logp, ref_logp: mean over complete responses, in nats, under the model that drew them and under the reference.
    reasons: responses by the reason of their grade.
    strata: accuracy by length of response.
    never: problems without a right response.
    limit: accuracy that each of those may still have (95 %).
    """

    name: str
    problems: int
    n: int
    accuracy: Interval
    pass_k: dict[int, Interval]
    maj_k: dict[int, Interval]
    length: Interval
    truncated: float
    logp: float
    ref_logp: float
    reasons: dict[str, int]
    strata: list[Stratum]
    never: int
    limit: float


def load_evaluation(folder: Path) -> tuple[list[Record], Json]:
    """The records of an evaluation, and its sample.json. Raises UserError where there is none, or a damaged file."""
    records, about = folder / "records.jsonl", folder / "sample.json"
    if not (records.is_file() and about.is_file()):
        raise UserError(f"{folder} holds no evaluation: it needs records.jsonl and sample.json")
    with or_else("put a copy of it back, or remove the folder and evaluate again"):
        made = read_shaped(about, Sample)
    with or_else("remove it, and the command that made it makes it again"):
        responses = read_records(records)
        if made.get("info") or made.get("records"):
            require_end(records)
            _require_all(records, responses, made)
    if not responses:
        raise UserError(f"{folder} holds no finished record yet; the command that began it goes on with it")
    return responses, made


def _require_all(path: Path, records: Sequence[Record], about: Json) -> None:
    """Raises UserError where a finished evaluation has lost some of its records."""
    wanted = about.get("records")
    if about.get("info") and about.get("recipe"):
        wanted = len(about.get("questions", ())) * about["recipe"].get("n", 1)
    if wanted is not None and len(records) != wanted:
        raise UserError(f"{path} holds {len(records)} records of {wanted}")


def figures_of(name: str, records: Sequence[Record]) -> Evaluation:
    """Figures of an evaluation from its records; `name` is what they are called by."""
    groups = by_problem(records)
    known = list(by_problem(graded(records)).values())
    right = [correct(group) for group in known]
    n = min(map(len, known), default=0)
    ks = sorted({k for k in (2**i for i in range(12)) if k <= n} | ({n} if n else set()))
    answers = [[record.answer for record in group] for group in known]
    means = averages(records)
    return Evaluation(
        name=name,
        problems=len(groups),
        n=n,
        accuracy=share_interval([sum(marks) / len(marks) for marks in right]),
        pass_k={k: share_interval([pass_at_k(len(marks), sum(marks), k) for marks in right]) for k in ks},
        maj_k={k: share_interval(majorities(list(zip(answers, right, strict=True)), k)) for k in ks},
        length=mean_interval([sum(r.tokens for r in group) / len(group) for group in groups.values()]),
        truncated=means["truncated"],
        logp=means["logp"],
        ref_logp=means["ref_logp"],
        reasons=dict(Counter(record.reason for record in records)),
        strata=by_length(records),
        never=sum(not any(marks) for marks in right),
        limit=never_limit(n),
    )


def write_evaluation_page(folder: Path) -> Path:
    """Render FOLDER/report.html. Raises UserError where the folder holds no evaluation."""
    records, about = load_evaluation(folder)
    evaluation = figures_of(folder.name, records)
    questions: Mapping[str, Sequence[str]] = about.get("questions", {})
    tokens = _tokens(folder / "tokens.jsonl", ended=bool(about.get("info")))
    names = list(dict.fromkeys(record.problem for record in records))[:SAMPLES]
    path = folder / "report.html"
    page = render_page(
        "evaluation.html.j2",
        {"at-k": _at_k(evaluation), "lengths": _lengths(evaluation)},
        evaluation=evaluation,
        about=about,
        recipe=yaml.safe_dump(about.get("recipe") or {"responses": about.get("responses")}, sort_keys=False),
        samples=[
            (
                questions.get(name, [name, "?"]),
                shown(line_of(tokens, name)),
                [r for r in records if r.problem == name][:4],
            )
            for name in names
        ],
        spelled=bool(tokens),
        shifts=(about.get("recipe") or {}).get("reference") is not None,
    )
    write_text(path, page)
    return path


def _tokens(path: Path, *, ended: bool) -> list[Json]:
    with or_else("remove it, and the page goes without"):
        return read_shaped_lines(path, TokenLine, ended=ended)


def _at_k(evaluation: Evaluation) -> go.Figure:
    figure = go.Figure()
    for name, curve, colour in (("pass@k", evaluation.pass_k, "#2563eb"), ("maj@k", evaluation.maj_k, "#15803d")):
        figure.add_scatter(
            x=list(curve),
            y=[at.value for at in curve.values()],
            customdata=[[at.low, at.high] for at in curve.values()],
            hovertemplate="k=%{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            mode="lines+markers",
            line={"color": colour, "width": 2},
            name=name,
        )
    figure.update_xaxes(type="log", dtick=0.30103, title={"text": "k", "standoff": 6})
    figure.update_yaxes(range=[-0.02, 1.02])
    return dressed(figure, 360)


def _lengths(evaluation: Evaluation) -> go.Figure:
    strata = evaluation.strata
    figure = go.Figure()
    figure.add_scatter(
        x=[f"{s.shortest} to {s.longest}" for s in strata],
        y=[s.accuracy.value for s in strata],
        customdata=[[s.responses] for s in strata],
        hovertemplate="%{x} tokens: %{y:.3f} of %{customdata[0]} responses<extra></extra>",
        mode="markers",
        marker={"size": 11, "color": "#2563eb"},
        error_y={
            "type": "data",
            "array": [s.accuracy.high - s.accuracy.value for s in strata],
            "arrayminus": [s.accuracy.value - s.accuracy.low for s in strata],
        },
    )
    figure.update_xaxes(type="category", title={"text": "tokens", "standoff": 6})
    figure.update_yaxes(range=[-0.02, 1.02], title={"text": "accuracy"})
    return dressed(figure, 360).update_layout(margin={"b": 50})
