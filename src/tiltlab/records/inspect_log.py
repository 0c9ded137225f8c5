"""Inspect (inspect_ai): logs as `.eval`, a zip of samples, and as `.json`.

Field names from inspect_ai/log/_log.py (`EvalSample`: id, epoch, input, target, output, scores, error, attachments),
inspect_ai/model/_model_output.py (`ModelOutput`: choices[].message, choices[].stop_reason,
choices[].logprobs.content[].logprob, usage.output_tokens), inspect_ai/scorer/_metric.py (`Score`: value, answer; "C",
"I", "P" and "N" are correct, incorrect, partial and no answer, and NaN is not scored), and inspect_ai/log/_condense.py
(a text may be "attachment://HASH", to be found in attachments). Both forms are read here, without inspect_ai.

It lacks log-probabilities under the base, and those under the model where they were not asked for.
"""

from collections.abc import Iterator
from math import nan
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample

_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ATTACHED = "attachment://"


def fits(row: Row) -> bool:
    """Whether a row is of this format: a sample with the log's `eval` section, as `rows.py` reads them."""
    return {"eval", "sample"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        of = fields.mapping(row, "eval", where)
        sample = fields.mapping(row, "sample", where)
        if "id" not in sample or "epoch" not in sample:
            raise UserError(f"{where} is no sample of Inspect: it has no id or no epoch")
        yield _sample(sample, fields.name(of, "task", where), where)


def _sample(row: Row, task: str, where: str) -> Sample:
    epoch = fields.count(row, "epoch", where) or 0
    attached = fields.mapping(row, "attachments", where)
    output = fields.mapping(row, "output", where)
    choices = fields.items(output, "choices", where)
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    each = fields.mapping(choice, "logprobs", where).get("content")
    tokens = fields.count(fields.mapping(output, "usage", where), "output_tokens", where) or 0
    grades, answer, unread = _grades(fields.mapping(row, "scores", where), where)
    return Sample(
        where,
        _response(choice, attached, where) if choice and not row.get("error") else None,
        prompt=fields.chat(_resolved(row.get("input", ""), attached, where), f"{where}: input"),
        problem=fields.name(row, "id", where),
        task=task,
        number=max(0, epoch - 1),
        complete=fields.ended(choice.get("stop_reason"), f"{where}: stop_reason"),
        tokens=tokens,
        logp=_logp(each, tokens, where),
        grades=grades,
        answer=answer,
        unread=unread,
        gold=fields.gold(row.get("target")),
    )


def _response(choice: Row, attached: Row, where: str) -> str:
    message = _resolved(fields.mapping(choice, "message", where), attached, where)
    return fields.content(message.get("content") or "", f"{where}: message.content")


def _resolved(value: Any, attached: Row, where: str) -> Any:
    """A value with the texts that stand apart put back into it."""
    if isinstance(value, str) and value.startswith(_ATTACHED):
        text = attached.get(value.removeprefix(_ATTACHED))
        if not isinstance(text, str):
            raise UserError(f"{where} refers to {shown(value)}, which its attachments do not hold")
        return text
    if isinstance(value, list):
        return [_resolved(inner, attached, where) for inner in value]
    if isinstance(value, dict):
        return {key: _resolved(inner, attached, where) for key, inner in value.items()}
    return value


def _logp(each: Any, tokens: int, where: str) -> float:
    if each is None:
        return nan
    if not isinstance(each, list):
        raise UserError(f"{where}: logprobs.content cannot be {shown(each)}; it must be a list")
    known = [token.get("logprob") if isinstance(token, dict) else token for token in each]
    return fields.whole(fields.summed(known, where), len(each), tokens)


def _grades(scores: Row, where: str) -> tuple[dict[str, float], str | None, bool]:
    """By scorer, or scorer and key; the first answer; and whether a scorer says that there is none."""
    grades: dict[str, float] = {}
    answers, unread = [], False
    for name, score in scores.items():
        if not isinstance(score, dict) or "value" not in score:
            raise UserError(f"{where}: scores.{name} cannot be {shown(score)}; it must be an object with a value")
        value = score["value"]
        for key, one in value.items() if isinstance(value, dict) else [("", value)]:
            grades[f"{name}.{key}" if key else name] = _grade(one)
        unread |= value == "N"
        answers += [score["answer"]] if isinstance(score.get("answer"), str) else []
    return grades, answers[0] if answers else None, unread


def _grade(value: Any) -> float:
    """NaN for what is no grade."""
    if isinstance(value, str):
        return _LETTERS.get(value, nan)
    return float(value) if isinstance(value, bool | int | float) else nan
