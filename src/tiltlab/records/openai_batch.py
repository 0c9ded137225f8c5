"""OpenAI and vLLM: output of a batch (`vllm run-batch`), and bare answers of the completions and chat endpoints.

Field names from the OpenAI API reference (batch, chat completion, completion objects), which vLLM follows: custom_id,
response.{status_code, body}, error; body.choices[].{index, text or message.content, finish_reason, logprobs};
logprobs.content[].logprob for chats, logprobs.token_logprobs for completions; usage.completion_tokens.

A batch's output holds no prompt: a problem is known by its custom_id. It lacks grades, and log-probabilities under the
base. Many servers leave the end of the response, or its thoughts, out of the log-probabilities of a chat, and count
them as tokens: the sum is then not known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import nan
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"custom_id", "response"} <= row.keys() or "choices" in row


def samples(rows: Rows) -> list[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    return _apart(list(_each(rows)))


def _each(rows: Rows) -> Iterator[Sample]:
    for where, row in rows:
        problem = fields.name(row, "custom_id", where) or (fields.name(row, "id", where) if "choices" in row else "")
        body = row if "choices" in row else fields.mapping(fields.mapping(row, "response", where), "body", where)
        choices = fields.items(body, "choices", where)
        if not choices:
            yield Sample(where, None, problem=problem)
        usage = fields.mapping(body, "usage", where)
        for choice in choices:
            if not isinstance(choice, dict):
                raise UserError(f"{where}: choices cannot hold {shown(choice)}; a choice is an object")
            tokens = fields.count(usage, "completion_tokens", where) if len(choices) == 1 else None
            yield _sample(choice, problem, tokens, where)


def _sample(choice: Row, problem: str, tokens: int | None, where: str) -> Sample:
    known = fields.mapping(choice, "logprobs", where)
    each = _logprobs(known, where)
    if "text" in choice:
        text = fields.text(choice, "text", where)
    else:
        message = fields.mapping(choice, "message", where)
        if "content" not in message:
            raise UserError(f"{where} has no response: a choice holds neither text nor message.content")
        text = fields.content(message["content"] or "", f"{where}: message.content")
    return Sample(
        where,
        text,
        problem=problem,
        complete=fields.ended(choice.get("finish_reason"), f"{where}: finish_reason"),
        tokens=(len(each) if tokens is None else tokens) if each is not None else tokens or 0,
        logp=nan if each is None else fields.whole(fields.summed(each, f"{where}: logprobs"), len(each), tokens),
    )


def _logprobs(known: Row, where: str) -> list[Any] | None:
    """The log-probability of each token; None where nobody asked for them."""
    if known.get("content"):
        return [
            entry.get("logprob") if isinstance(entry, dict) else entry
            for entry in fields.items(known, "content", where)
        ]
    return fields.items(known, "token_logprobs", where) or None


def _apart(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples, of whose ids a number at the end is that of the response.

    Only where no problem has two responses else: `q7-0`, `q7-1` are then two responses to `q7`.
    """
    ids = [sample.problem for sample in samples]
    cut = [name.rstrip("0123456789") for name in ids]
    stems = [stem.rstrip("-_:/#. ") for stem in cut]
    apart = len(set(ids)) == len(ids) and all(
        stem and stem != whole and whole != name for stem, whole, name in zip(stems, cut, ids, strict=True)
    )
    if not apart or len(set(stems)) == len(stems):
        return list(samples)
    return [
        replace(sample, problem=stem, number=int(name[len(whole) :]))
        for sample, stem, whole, name in zip(samples, stems, cut, ids, strict=True)
    ]
