"""Studies side by side: what each arm came to in each, on the same problems, and what differs between the recipes."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from tiltlab.errors import UserError
from tiltlab.forecast.forecast import Forecast
from tiltlab.report.export import Table, write_tables
from tiltlab.report.figures import by_step, label, small, titled
from tiltlab.report.findings import Findings, findings
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.html import render_page
from tiltlab.report.load import Study, load_study
from tiltlab.report.styles import arm_colours
from tiltlab.report.tables import Row, result_rows
from tiltlab.report.text import signed
from tiltlab.stats.metrics import Interval
from tiltlab.stats.paired import compare
from tiltlab.storage.files import Json, write_text
from tiltlab.types import Record

_SYMBOLS = ("circle", "diamond", "square", "cross", "star", "triangle-up", "pentagon", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Side:
    """One arm on one task in one run.

    task, arm, run: by name.
    row: its figures, of the last checkpoint.
    verdict: its outcome; None for an arm without one.
    against: its accuracy less that in the first run, problem by problem; None in the first run itself, and where the
        two were tested on different problems.
    """

    task: str
    arm: str
    run: str
    row: Row
    verdict: str | None
    against: Interval | None


@dataclass(frozen=True)
class Compared:
    """Studies side by side.

    runs: names of the run folders, in the order given.
    sides: task by task and arm by arm, runs in the order given.
    differing: keys of the recipes and versions whose values are not the same, with the value in each run, None where
        there is none.
    notes: what could not be compared, one line each.
    studies: in the order given.
    forecasts: by task, from the base of the first run that has one.
    """

    runs: tuple[str, ...]
    sides: tuple[Side, ...]
    differing: dict[str, list[Any]]
    notes: tuple[str, ...]
    studies: tuple[Study, ...]
    forecasts: dict[str, Forecast | None]


def compare_runs(folders: Sequence[Path]) -> Compared:
    """Put studies side by side, the first of them being what the others are held against.

    folders: run folders, two or more.

    Raises UserError for fewer than two, for one that is given twice, and for one that holds no study.
    """
    if len(folders) < 2:
        raise UserError("a comparison takes two run folders or more")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run folder is given twice")
    studies = [load_study(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    told = [{task: findings(study, task) for task in study.tasks} for study in studies]
    sides = [
        side
        for name, study, of in zip(names, studies, told, strict=True)
        for side in _sides(name, study, of, studies[0])
    ]
    places = {key: place for place, key in enumerate(dict.fromkeys((side.task, side.arm) for side in sides))}
    tasks = list(dict.fromkeys(side.task for side in sides))
    sides.sort(key=lambda side: (tasks.index(side.task), places[side.task, side.arm], names.index(side.run)))
    shared = set.intersection(*(set(study.configs) for study in studies))
    differing = _differing([_settings(study, shared) | _versions(study) for study in studies])
    forecasts = {
        task: next((of[task].forecast for of in told if task in of and of[task].forecast), None) for task in tasks
    }
    return Compared(tuple(names), tuple(sides), differing, tuple(_notes(names, studies)), tuple(studies), forecasts)


def write_comparison(comparison: Compared, out: Path) -> Path:
    """Write compare.html, which is returned, and tables/compare.{md,tex,csv} to a folder."""
    page = render_page(
        "compare.html.j2",
        {f"plane-{i}": _plane(comparison, task) for i, task in enumerate(_tasks(comparison))}
        | {f"curves-{i}": _curves(comparison, task) for i, task in enumerate(_tasks(comparison))},
        comparison=comparison,
        tasks=_tasks(comparison),
        said={task: in_words(comparison, task) for task in _tasks(comparison)},
        symbols=_SYMBOLS,
        dashes=_DASHES,
        rendered=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(out / "compare.html", page)
    write_tables(table_of(comparison), out / "tables", "compare")
    return out / "compare.html"


def table_of(comparison: Compared) -> Table:
    """The table for other documents: one row for each arm on each task in each run."""
    columns = ("task", "arm", "run", "accuracy", "against the first", "length", "KL", "tokens used", "verdict")
    rows = [
        (
            s.task,
            s.arm,
            s.run,
            s.row.accuracy,
            s.against,
            s.row.length.value,
            s.row.kl.value,
            s.row.tokens_used,
            s.verdict,
        )
        for s in comparison.sides
    ]
    caption = f"{', '.join(comparison.runs)}: last checkpoints; 95 % intervals over problems; KL in nats a response."
    return Table(columns, rows, {"length": 1, "KL": 2, "tokens used": 1}, caption)


def _sides(name: str, study: Study, findings: Mapping[str, Findings], first: Study) -> list[Side]:
    verdicts = {task: of.verdicts for task, of in findings.items()}
    return [
        Side(
            task=row.task,
            arm=row.arm,
            run=name,
            row=row,
            verdict=verdicts[row.task][row.arm].outcome if row.arm in verdicts[row.task] else None,
            against=None if study is first else _against(study, first, row.task, row.arm),
        )
        for row in result_rows(study)
        if row.which != "best"
    ]


def _against(study: Study, first: Study, task: str, arm: str) -> Interval | None:
    before, after = _records(first, task, arm), _records(study, task, arm)
    if not (before and after and _problems(first, task) == _problems(study, task)):
        return None
    try:
        return compare(before, after).difference
    except ValueError:  # nothing graded
        return None


def _records(study: Study, task: str, arm: str) -> list[Record]:
    return [r for one in study.on(task) if one.name == arm for seeded in one.seeds for r in seeded.last]


def _problems(study: Study, task: str) -> Any:
    test = study.tests.get(task)
    return test and test.sha256


def _notes(names: Sequence[str], studies: Sequence[Study]) -> list[str]:
    first = studies[0]
    other = [
        f"{task}: {names[0]} and {name} were tested on different problems; no difference is given"
        for name, study in zip(names[1:], studies[1:], strict=True)
        for task in study.tasks
        if task in first.tasks and _problems(study, task) != _problems(first, task)
    ]
    return other + [
        f"{task}: not in every run; here it is in {name}"
        for name, study in zip(names, studies, strict=True)
        for task in study.tasks
        if any(task not in another.tasks for another in studies)
    ]


def _settings(study: Study, shared: Set[str]) -> Json:
    """A recipe by dotted key; of arms and tasks the names, and what `shared` ones are set to."""
    of_all = {key: value for key, value in study.recipe.items() if key not in ("arms", "tasks")}
    names = {"tasks": ", ".join(study.data), "arms": ", ".join(study.configs)}
    arms = {f"{name}: {k}": v for name in study.configs if name in shared for k, v in study.configs[name].items()}
    return _flat(of_all) | names | arms | {"seeds": study.seeds}


def _flat(value: Any, where: str = "") -> Json:
    """A tree of plain values by dotted key."""
    if isinstance(value, Mapping):
        return {
            k: v for key, inner in value.items() for k, v in _flat(inner, f"{where}.{key}" if where else key).items()
        }
    return {where: value}


def _versions(study: Study) -> Json:
    made = study.made[-1]
    return {f"version of {name}": version for name, version in made["versions"].items()} | {"commit": made["commit"]}


def _differing(flat: Sequence[Json]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: of_runs for key, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)}


def _tasks(comparison: Compared) -> list[str]:
    return list(dict.fromkeys(side.task for side in comparison.sides))


def _plane(comparison: Compared, task: str) -> go.Figure:
    """Accuracy against KL: colours by arm as in each study's own page, symbols by run; lines by the first forecast."""
    colours = _colours(comparison)
    reached = [
        Reached(
            f"{side.arm} · {side.run}",
            side.row.accuracy,
            side.row.kl,
            colours[side.arm],
            _SYMBOLS[comparison.runs.index(side.run) % len(_SYMBOLS)],
        )
        for side in comparison.sides
        if side.task == task
    ]
    return frontier(comparison.forecasts[task], reached, task)


def _curves(comparison: Compared, task: str) -> go.Figure:
    """Accuracy on the validation split through training, the mean over seeds: colours by arm, dashes by run."""
    figure = go.Figure()
    colours = _colours(comparison)
    for number, (run, study) in enumerate(zip(comparison.runs, comparison.studies, strict=True)):
        for arm in (arm for arm in study.on(task) if arm.trained):
            steps, values = by_step([seeded.validation for seeded in arm.seeds], "validation", "accuracy")
            figure.add_scatter(
                x=steps,
                y=values.mean(1),
                mode="lines+markers",
                line={"color": colours[arm.name], "width": 2, "dash": _DASHES[number % len(_DASHES)]},
                name=label(f"{arm.name} · {run}"),
                showlegend=False,
                hovertemplate="%{fullData.name}<br>step %{x}: %{y:.3f}<extra></extra>",
            )
    figure.update_yaxes(range=[-0.02, 1.02], title={"text": "accuracy, validation split"})
    return titled(small(figure, "step", 340), task)


def _colours(comparison: Compared) -> dict[str, str]:
    return {name: colour for study in reversed(comparison.studies) for name, colour in arm_colours(study).items()}


def in_words(comparison: Compared, task: str) -> str:
    """Which arms came to another verdict, and which are better or worse than in the first run for sure."""
    said = []
    for arm in dict.fromkeys(side.arm for side in comparison.sides if side.task == task):
        sides = [side for side in comparison.sides if (side.task, side.arm) == (task, arm)]
        verdicts = {side.run: side.verdict for side in sides if side.verdict}
        if len(set(verdicts.values())) > 1:
            said.append(f"{arm}: " + ", ".join(f"{verdict} in {run}" for run, verdict in verdicts.items()))
        sure = [side for side in sides if side.against and (side.against.low > 0 or side.against.high < 0)]
        said += [f"{arm}: {signed(side.against)} in {side.run}" for side in sure]
    return "; ".join(said) + "." if said else "no arm differs for sure."
