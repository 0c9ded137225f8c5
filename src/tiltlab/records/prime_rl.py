"""prime-rl and verifiers: `traces.jsonl`, an episode a line.

Field names from verifiers/v1/episode.py (`Episode`: traces, task, run.work.step), verifiers/v1/trace.py (`Trace`:
nodes, calls[].finish_reason, rewards.*.{score, weight}, stop_condition, errors; keys that are null are left out) and
verifiers/v1/graph.py (`MessageNode`: parent, message, sampled, token_ids, mask (true on tokens that were drawn),
logprobs and reference_logprobs (of the drawn tokens alone)). Folders from prime_rl/monitors/file.py.

A response of several turns is taken as one, with its turns one below the other. `reference_logprobs` are there where
an algorithm scored a reference, which is taken for the base.
"""

from collections.abc import Iterator, Sequence
from math import fsum, nan
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return "traces" in row or {"nodes", "rewards"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        traces = fields.items(row, "traces", where) if "nodes" not in row else [row]
        work = fields.mapping(fields.mapping(row, "run", where), "work", where)
        step = fields.count(work, "step", where)
        known = False
        for i, trace in enumerate(traces):
            if not isinstance(trace, dict):
                raise UserError(f"{where}: traces[{i}] cannot be {shown(trace)}; it must be an object")
            if fields.mapping(trace, "agent", where).get("trainable", True):
                known = True
                yield _sample(trace, fields.mapping(row, "task", where), step, where)
        if not known:
            yield Sample(where, None)


def _sample(trace: Row, task: Row, step: int | None, where: str) -> Sample:
    path = _path(fields.items(trace, "nodes", where), where)
    drawn = [node for node in path if node.get("sampled")]
    task = fields.mapping(trace, "task", where) or task
    data = fields.mapping(task, "data", where)
    before = path[: path.index(drawn[0])] if drawn else path
    errors = fields.items(trace, "errors", where)
    return Sample(
        where,
        None if not drawn or (errors and not trace.get("ok", True)) else "\n\n".join(_said(n, where) for n in drawn),
        prompt=fields.chat([node["message"] for node in before], where),
        problem=fields.name(task, "key", where) or fields.name(task, "hash", where) or fields.name(data, "idx", where),
        complete=_complete(trace, where),
        tokens=sum(sum(map(bool, fields.items(node, "mask", where))) for node in drawn),
        logp=_total(drawn, "logprobs", where),
        ref_logp=_total(drawn, "reference_logprobs", where),
        grades=_grades(fields.mapping(trace, "rewards", where), where),
        gold=fields.gold(data.get("answer")),
        step=step,
        ids=tuple(token for node in drawn for token in _ids(node, where)),
    )


def _path(nodes: Sequence[Any], where: str) -> list[Row]:
    """From the root to the last message that the model drew."""
    for i, node in enumerate(nodes):
        parent = node.get("parent") if isinstance(node, dict) else -1
        if not isinstance(node, dict) or not isinstance(node.get("message"), dict):
            raise UserError(f"{where}: nodes[{i}] cannot be {shown(node)}; it must be an object with a message")
        if parent is not None and not (isinstance(parent, int) and 0 <= parent < i):
            raise UserError(f"{where}: nodes[{i}] cannot have the parent {shown(parent)}; it must be an earlier node")
    at = max((i for i, node in enumerate(nodes) if node.get("sampled")), default=len(nodes) - 1)
    path: list[Row] = []
    number: int | None = at if nodes else None
    while number is not None:
        path.insert(0, nodes[number])
        number = nodes[number].get("parent")
    return path


def _said(node: Row, where: str) -> str:
    return fields.content(node["message"].get("content") or "", f"{where}: message.content")


def _ids(node: Row, where: str) -> tuple[int, ...]:
    ids, mask = fields.items(node, "token_ids", where), fields.items(node, "mask", where)
    return fields.token_ids(fields.masked(ids, mask, f"{where}: token_ids") if mask else [], f"{where}: token_ids")


def _total(drawn: Sequence[Row], key: str, where: str) -> float:
    """The sum over all turns; NaN where one of them does not have it."""
    return fsum(fields.summed(node.get(key), f"{where}: {key}") for node in drawn) if drawn else nan


_LIMITS = ("max_turns", "max_input_tokens", "max_output_tokens", "max_total_tokens", "context_length")


def _complete(trace: Row, where: str) -> bool | None:
    if trace.get("stop_condition") in _LIMITS:
        return False
    calls = [call for call in fields.items(trace, "calls", where) if isinstance(call, dict) and "finish_reason" in call]
    return fields.ended(calls[-1]["finish_reason"], f"{where}: finish_reason") if calls else None


def _grades(rewards: Row, where: str) -> dict[str, float]:
    grades = {}
    for name, reward in rewards.items():
        value = reward.get("score") if isinstance(reward, dict) else reward
        grades[name] = fields.grade(value, f"{where}: rewards.{name}")
    return grades
