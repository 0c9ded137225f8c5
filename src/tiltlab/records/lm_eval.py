"""lm-evaluation-harness: `samples_{task}_{date}.jsonl` of --log_samples.

Field names from lm_eval/evaluator.py (`example`) and lm_eval/loggers/evaluation_tracker.py (`save_results_samples`):
doc_id, doc, target, arguments (gen_args_0.arg_0 is the prompt; a list of pairs in older versions), resps (a list a
request, of its repeats), filtered_resps, filter, metrics, and a column for each metric. A task with several filters has
a row for each.

It lacks the finish reason, lengths and log-probabilities. The metrics of several repeats are one number, which then is
no response's grade.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample

_QUESTIONS = ("question", "problem", "query", "Problem")
_KEYS = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"doc_id", "resps", "arguments"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    read: dict[tuple[str, str, int], Sample] = {}
    filters: dict[tuple[str, str, int, str], str] = {}
    for where, row in rows:
        of = str(row.get("filter", ""))
        for sample in _of_row(row, where):
            key = (sample.task, sample.problem, sample.number or 0)
            first = filters.setdefault((*key, of), where)
            if first != where:
                raise UserError(f"{where} is document {shown(sample.problem)} by filter {shown(of)}, as {first} is")
            grades = {f"{name},{of}" if of else name: value for name, value in sample.grades.items()}
            before = read.get(key)
            read[key] = replace(before or sample, grades={**(before.grades if before else {}), **grades})
    yield from read.values()


def _of_row(row: Row, where: str) -> Iterator[Sample]:
    responses = _responses(row, where)
    alone = len(responses) == 1
    answers = fields.items(row, "filtered_resps", where)
    answer = answers[0] if alone and len(answers) == 1 and isinstance(answers[0], str) else None
    prompt = _prompt(row, where)
    for number, response in enumerate(responses):
        yield Sample(
            where,
            response,
            prompt=prompt,
            problem=fields.name(row, "doc_id", where),
            task=_task(where),
            number=number,
            grades=_grades(row, where) if alone else {},
            answer=None if answer == "[invalid]" else answer,
            unread=answer == "[invalid]",
            gold=fields.gold(row.get("target")),
        )


def _responses(row: Row, where: str) -> list[str]:
    asked = fields.items(row, "resps", where)
    if len(asked) != 1 or not isinstance(asked[0], list) or not all(isinstance(text, str) for text in asked[0]):
        raise UserError(
            f"{where} holds no response (resps is {shown(asked)}): a task that weighs given choices has none; "
            "run one that generates"
        )
    if not asked[0]:
        raise UserError(f"{where} holds no response: resps is empty")
    return asked[0]


def _prompt(row: Row, where: str) -> str:
    """The document's own question, where it has one: few-shot examples stand before it in the prompt."""
    doc = fields.mapping(row, "doc", where)
    for key in _QUESTIONS:
        if isinstance(doc.get(key), str):
            return str(doc[key])
    given: Any = row["arguments"]
    given = fields.at(given, "gen_args_0.arg_0") if isinstance(given, dict) else fields.at(given, "0.0")
    if not isinstance(given, str):
        raise UserError(f"{where} has no prompt: arguments is {shown(row['arguments'])}")
    return given


def _grades(row: Row, where: str) -> dict[str, float]:
    named = [key for key in fields.items(row, "metrics", where) if isinstance(key, str) and key in row]
    named = named or [key for key, value in row.items() if key not in _KEYS and isinstance(value, bool | int | float)]
    return {
        key: fields.grade(row[key], f"{where}: {key}")
        for key in named
        if row[key] is None or isinstance(row[key], bool | int | float)
    }


def _task(where: str) -> str:
    """From the name of the file, which alone says it."""
    found = re.search(r"samples_(.+)_\d{4}-\d\d-\d\dT[^/]*\.jsonl", where)
    return found[1] if found else ""
