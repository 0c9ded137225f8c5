"""Responses that another engine drew, read from a JSONL file.

Left out on purpose: what is wrong with a line is told, never mended. A guess would be graded as if it were a response.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlab.datasets.cells import as_text, id_of, is_empty
from tiltlab.datasets.files import read_objects
from tiltlab.errors import UserError, shown
from tiltlab.storage.incoming import require_count, require_logp
from tiltlab.types import Problem


@dataclass(frozen=True)
class Response:
    """One response, not yet graded. Its fields are those of a `Record`.

    problem: that it answers.
    sample: its number among the problem's responses.
    text: as the model wrote it.
    tokens: how many, 0 where that is not known.
    complete: whether it ended of itself; else the limit truncated it.
    logp, ref_logp: of the response under the model that drew it and under the reference, in nats; NaN where not known.
    """

    problem: Problem
    sample: int
    text: str
    tokens: int
    complete: bool
    logp: float
    ref_logp: float


def read_responses(file: Path, problems: Sequence[Problem], name: str) -> list[Response]:
    """The responses of a file to these problems, in the order of its lines.

    file: JSONL (see `run.from_elsewhere`).
    name: what messages call the problems.

    Raises UserError, naming the line, for one that cannot be used, for two that are the same sample of a problem, and
    for a file without any.
    """
    by_name = _by_name(problems)
    responses: list[Response] = []
    places: dict[tuple[str, int], str] = {}
    counts: dict[str, int] = {}
    for where, line in read_objects(str(file)):
        given = {key: value for key, value in line.items() if not is_empty(value) or key == "text"}
        problem = _problem(given, by_name, name, where)
        response = _response(given, problem, counts.get(problem.id, 0), where)
        counts[problem.id] = counts.get(problem.id, 0) + 1
        first = places.setdefault((problem.id, response.sample), where)
        if first != where:
            raise UserError(f"{where} is sample {response.sample} of problem {shown(problem.id)}, as {first} is")
        responses.append(response)
    if not responses:
        raise UserError(f"{file} is empty; it needs one JSON object a line")
    return responses


def _by_name(problems: Sequence[Problem]) -> dict[str, Problem | None]:
    """Problems by id, and by question where that says which; None where two have it."""
    names: dict[str, Problem | None] = {}
    for problem in problems:
        names[problem.question] = None if problem.question in names else problem
    return names | {problem.id: problem for problem in problems}


def _problem(line: Mapping[str, Any], by_name: Mapping[str, Problem | None], task: str, where: str) -> Problem:
    said = id_of(line["problem"], where) if "problem" in line else as_text(line.get("question"))
    if said is None:
        raise UserError(f'{where} names no problem: it needs "problem", an id, or "question", its text')
    if said not in by_name:
        raise UserError(f"{where}: {shown(said)} is no problem of {task}")
    problem = by_name[said]
    if problem is None:
        raise UserError(f'{where}: two problems ask {shown(said)}; name the one that is meant by its id, in "problem"')
    return problem


def _response(line: Mapping[str, Any], problem: Problem, number: int, where: str) -> Response:
    text, complete = line.get("text"), line.get("complete", True)
    if not isinstance(text, str):
        raise UserError(f'{where} has no response: "text" is {"missing" if text is None else shown(text)}')
    if not isinstance(complete, bool):
        raise UserError(f"{where}: complete cannot be {shown(complete)}; write true or false, without quotes")
    return Response(
        problem,
        require_count(line.get("sample", number), f"{where}: sample"),
        text,
        require_count(line.get("tokens", 0), f"{where}: tokens"),
        complete,
        require_logp(line.get("logp"), f"{where}: logp"),
        require_logp(line.get("ref_logp"), f"{where}: ref_logp"),
    )
