"""Where an evaluation is, from its folder alone. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiltlab.report.status import is_silent, since
from tiltlab.storage import shapes
from tiltlab.storage.files import whole_lines
from tiltlab.storage.place import Place, Where, place_of
from tiltlab.storage.shaped import or_else, read_shaped, read_shaped_lines

State = Literal["begun", "drawing", "stopped", "killed", "done"]


@dataclass(frozen=True)
class EvaluationStatus:
    """Where an evaluation is.

    task, sampler: by name; no sampler where another engine drew.
    state: whether responses are still to be drawn, and whether somebody draws them.
    problems, of: that are drawn, and in all; None where the folder does not say how many.
    responses: drawn.
    left: seconds of drawing left at the rate so far, None where nothing is known.
    changed: seconds since anything was written.
    where: it runs, or was killed; None where it does not run, or an older version wrote the folder.
    is_silent: as of a job (status.JobStatus).
    """

    task: str | None
    sampler: str | None
    state: State
    problems: int
    of: int | None
    responses: int
    left: float | None
    changed: float
    where: Where | None = None
    is_silent: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is done."""
        return self.state == "done"


def is_evaluation(folder: Path) -> bool:
    """Whether `tiltlab evaluate` wrote a folder."""
    return (folder / "sample.json").is_file() and not (folder / "study.json").exists()


def evaluation_status(folder: Path) -> EvaluationStatus:
    """Where the evaluation in a folder is. Raises UserError for a damaged file."""
    with or_else("put a copy of it back, or remove the folder"):
        about = read_shaped(folder / "sample.json", shapes.Sample)
        lots = read_shaped_lines(folder / "lots.jsonl", shapes.Info, ended=False)
        place = place_of(folder)
    recipe = about.get("recipe") or {}
    done = "info" in about or not recipe
    responses = len(whole_lines(folder / "records.jsonl"))
    problems = len(about.get("questions", ())) if done else responses // recipe.get("n", 1)
    of = problems if done else about.get("of")
    seconds = sum(lot["seconds"] for lot in lots)
    state = _state(done, place, bool(lots))
    changed = since(folder.glob("*.json*"))
    where = place.at if place and not done else None
    return EvaluationStatus(
        task=_name(recipe.get("task"), "task"),
        sampler=_name(recipe.get("sampler"), "arm"),
        state=state,
        problems=problems,
        of=of,
        responses=responses,
        left=seconds * (of - problems) / problems if of and problems and not done else None,
        changed=changed,
        where=where,
        is_silent=state in ("begun", "drawing") and is_silent(where, changed),
    )


def _state(done: bool, place: Place | None, drawing: bool) -> State:
    if done:
        return "done"
    if place and place.ended:
        return place.ended
    return "drawing" if drawing else "begun"


def _name(config: Any, kind: str) -> str | None:
    """What a task or a sampler is called, as a recipe has it."""
    given = config if isinstance(config, dict) else {}
    return next((str(given[key]) for key in ("label", "name", kind) if given.get(key)), None)
