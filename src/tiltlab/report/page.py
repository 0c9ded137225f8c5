"""A study as one HTML page that needs no network, and its table for other documents."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml

from tiltlab.report.alarms import fired_alarms
from tiltlab.report.along import along
from tiltlab.report.card import write_cards
from tiltlab.report.export import Table, write_tables
from tiltlab.report.figures import at_k_curve, cost, curves_of, learning_curves
from tiltlab.report.findings import Findings, findings
from tiltlab.report.forecast import fate, lines_in_words, reason_of
from tiltlab.report.foretold import Foretold, foretold
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.headline import headline
from tiltlab.report.html import render_page
from tiltlab.report.lead import caveats, cost_in_words, lead, limits_in_words, samples_in_words
from tiltlab.report.load import ArmOnTask, Study
from tiltlab.report.outcome import by_which
from tiltlab.report.parts import PARTS, parts_of_arms
from tiltlab.report.styles import IN_WORDS, STROKES, arm_colours, arm_dashes, is_trained
from tiltlab.report.tables import Row, at_k, result_rows
from tiltlab.report.tokens import Shown, line_of, ranks, shown, where
from tiltlab.storage.files import write_text

SAMPLES = 4
"""Problems whose responses are shown side by side, for each task."""


def write_analysed(run: Path, study: Study, rows: Sequence[Row], findings: Mapping[str, Findings]) -> Path:
    """Write RUN/report.html, which is returned, RUN/tables/results.{md,tex,csv} and a card for each checkpoint.

    run: the run folder that the study was read from.
    rows, findings: of `analysed`.

    Raises UserError where they cannot be written.
    """
    path = run / "report.html"
    write_text(path, render(study, rows, findings))
    write_tables(table_of(study, rows, findings), run / "tables", "results")
    write_cards(run, study, rows, findings)
    return path


def analysed(study: Study) -> tuple[list[Row], dict[str, Findings]]:
    """What the page and the table both show: rows, and by task what else the records say."""
    return result_rows(study), {task: findings(study, task) for task in study.tasks}


def table_of(study: Study, rows: Sequence[Row], findings: Mapping[str, Findings]) -> Table:
    """The result table, with the verdict on each trained arm's last checkpoint.

    rows, findings: of `analysed`.
    """
    columns = (
        "task",
        "arm",
        "checkpoint",
        "accuracy",
        "gain",
        at_k(rows, "pass"),
        at_k(rows, "maj"),
        "length",
        "KL",
        "tokens used",
        "verdict",
    )
    lines = []
    for row in rows:
        verdict = findings[row.task].verdicts.get(row.arm) if row.which == "last" else None
        figures = (row.accuracy, row.gain, row.pass_k, row.maj_k, row.length.value, row.kl.value, row.tokens_used)
        lines.append((row.task, row.arm, row.checkpoint or None, *figures, verdict.outcome if verdict else None))
    caption = f"{study.name}: {samples_in_words(study)} on each problem of the test split, "
    caption += f"{study.seeds} seed(s); "
    caption += "95 % intervals over problems; length in tokens, KL to the base in nats a response."
    return Table(columns, lines, {"length": 1, "KL": 2, "tokens used": 1}, caption)


def render(study: Study, rows: Sequence[Row], findings: Mapping[str, Findings]) -> str:
    """The page of a study.

    rows, findings: of `analysed`.
    """
    alarmed = {task: fired_alarms(study, task) for task in study.tasks}
    told = {task: foretold(study, task, findings[task]) for task in study.tasks}
    curves = curves_of(study)
    figures: dict[str, go.Figure] = {}
    for i, task in enumerate(study.tasks):
        figures |= _of_task(i, study, rows, task, findings[task])
        figures |= _of_verdicts(i, task, findings[task], told[task])
        if study.tests[task].leads:
            shown = {curve[1]: learning_curves(study, task, [curve], alarmed[task]) for curve in curves}
            figures |= {f"curves-{i}-{key}": figure for key, figure in shown.items()}
    return render_page(
        "page.html.j2",
        figures,
        study=study,
        rows=rows,
        findings=findings,
        foretold=told,
        fate=fate,
        reason=reason_of,
        by_which=by_which,
        parts=PARTS,
        leads={task: lead(study, rows, task, findings[task]) for task in study.tasks},
        caveats=caveats(study, findings),
        cost=cost_in_words(study),
        at_k=at_k,
        samples_in_words=samples_in_words(study),
        limits=limits_in_words(study),
        colours=arm_colours(study),
        strokes={arm: STROKES[dash] for arm, dash in arm_dashes(study).items()},
        colours_in_words=IN_WORDS,
        curves=[key for _, key, _ in curves],
        alarmed=alarmed,
        lines_in_words=lines_in_words(next((one.forecast for one in findings.values() if one.forecast), None)),
        weighed=min((one.forecast.samples_per_problem for one in findings.values() if one.forecast), default=None),
        spelled=any(seeded.tokens for arm in study.arms for seeded in arm.seeds),
        curved={task: _curved(study, task) for task in study.tasks},
        samples=[(task, _samples(study, task)) for task in study.tasks],
        recipe=yaml.safe_dump(study.recipe, sort_keys=False),
        differing=_differing(study),
        rendered=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _of_task(number: int, study: Study, rows: Sequence[Row], task: str, findings: Findings) -> dict[str, go.Figure]:
    """The figures that every task has."""
    arms, top = study.on(task), headline(study, rows, [task])
    height = max(260, top.layout.height)
    return {
        f"headline-{number}": top,
        f"frontier-{number}": frontier(findings.forecast, reached(study, rows, task), height=height),
        f"ranks-{number}": ranks({arm.name: arm.seeds[0].tokens for arm in arms}, task),
        f"where-{number}": where({arm.name: arm.seeds[0].tokens for arm in arms if arm.trained}, task),
        f"cost-{number}": cost(study, rows, task),
        **{f"at-k-{number}-{kind}": at_k_curve(study, task, kind) for kind in ("pass", "maj")},
    }


def _of_verdicts(number: int, task: str, findings: Findings, told: Sequence[Foretold]) -> dict[str, go.Figure]:
    """The gains of a task in their parts, and where its runs without a label stand, as far as either is known."""
    lines = findings.forecast.lines if findings.forecast else None
    runs = [one.standing for one in told if one.standing]
    known = {
        f"parts-{number}": parts_of_arms(findings.verdicts, task),
        f"along-{number}": along(lines, runs, task, height=320) if lines and runs else None,
    }
    return {name: figure for name, figure in known.items() if figure is not None}


def reached(study: Study, rows: Sequence[Row], task: str) -> list[Reached]:
    """What the arms of a task reached, last checkpoints.

    rows: of the result table, of any task.
    """
    colours = arm_colours(study)
    shown = [row for row in rows if row.task == task and row.which != "best"]
    return [
        Reached(
            row.arm,
            row.accuracy,
            row.kl,
            colours[row.arm],
            "circle" if is_trained(study.configs[row.arm]) else "diamond",
        )
        for row in shown
    ]


def _differing(study: Study) -> dict[str, list[Any]]:
    """What tells arms apart, with each arm's value, None where it has no such key: keys that only one kind of arm has,
    and those whose values are not the same for all that have them."""
    arms = list(study.configs.values())
    keys = dict.fromkeys(key for arm in arms for key in arm if key not in ("label", "arm"))
    having = {key: [arm for arm in arms if key in arm] for key in keys}
    telling = [
        key
        for key, some in having.items()
        if len({arm["arm"] for arm in some}) == 1 or any(arm[key] != some[0][key] for arm in some)
    ]
    return {key: [arm.get(key) for arm in arms] for key in telling}


def _curved(study: Study, task: str) -> list[str]:
    """The arms that have learning curves."""
    curved = {arm.name for arm in study.on(task) if arm.trained} if study.tests[task].leads else set()
    curved |= {job.arm for job in study.failed if job.task == task and job.metrics}
    return [name for name in study.configs if name in curved]


def _tokens(arm: ArmOnTask, problem: str) -> list[Shown] | None:
    return shown(line_of(arm.seeds[0].tokens, problem))


def _samples(study: Study, task: str) -> list[dict[str, Any]]:
    """The first response of every arm to a few problems."""
    arms = study.on(task)
    problems = list(dict.fromkeys(record.problem for record in arms[0].seeds[0].last))[:SAMPLES]
    return [
        {
            "problem": study.problems.get((study.tests[task].name, problem), {"question": problem, "answer": "?"}),
            "responses": [
                (arm.name, next(r for r in arm.seeds[0].last if r.problem == problem), _tokens(arm, problem))
                for arm in arms
            ],
        }
        for problem in problems
    ]
