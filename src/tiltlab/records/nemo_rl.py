"""NeMo-RL: `train_data_step{N}.jsonl` and `val_data_step{N}.jsonl` of its log folder.

Field names from nemo_rl/algorithms/grpo.py and nemo_rl/utils/logger.py (`log_batched_dict_as_jsonl`, which writes every
value of a row as a batch of one): content (the texts of the messages; in a validation dump the messages themselves),
rewards, input_lengths, token_ids, token_loss_mask (1 on tokens that were drawn), generation_logprobs (of the engine
that drew), prev_logprobs (of the trainer; zeros where its forward pass was left out), idx.

It lacks ids, the finish reason, and log-probabilities under the base.
"""

from collections.abc import Iterator
from math import isnan, nan
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"content", "rewards"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        prompt, response = _texts(row, where)
        mask = _alone(row.get("token_loss_mask"))
        if mask is not None and not isinstance(mask, list):
            raise UserError(f"{where}: token_loss_mask cannot be {shown(mask)}; it must be a list")
        yield Sample(
            where,
            response,
            prompt=prompt,
            tokens=sum(map(bool, mask)) if mask else 0,
            logp=_logp(row, mask, where) if mask else nan,
            grades={"rewards": fields.grade(_alone(row.get("rewards")), f"{where}: rewards")},
            ids=_ids(row, mask, where) if mask else (),
        )


def _texts(row: Row, where: str) -> tuple[str, str]:
    """What is said before the last message, and the last message."""
    said = row.get("content")
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], list):
        said = said[0]
    if not isinstance(said, list) or len(said) < 2:
        raise UserError(f"{where} has no prompt and response: content is {shown(said)}")
    if all(isinstance(message, dict) for message in said):
        return fields.chat(said[:-1], f"{where}: content"), fields.text(said[-1], "content", f"{where}: content")
    return fields.content("\n\n".join(map(_text(where), said[:-1])), where), _text(where)(said[-1])


def _text(where: str) -> Any:
    return lambda value: fields.content(value, f"{where}: content")


def _logp(row: Row, mask: list[Any], where: str) -> float:
    """By the engine that drew; by the trainer where that said nothing."""
    for key in ("generation_logprobs", "prev_logprobs"):
        if row.get(key) is None:
            continue
        drawn = fields.masked(_alone(row[key]), mask, f"{where}: {key}")
        logp = fields.summed(drawn, f"{where}: {key}")
        if not isnan(logp) and any(drawn):
            return logp
    return nan


def _ids(row: Row, mask: list[Any], where: str) -> tuple[int, ...]:
    if row.get("token_ids") is None:
        return ()
    drawn = fields.masked(_alone(row["token_ids"]), mask, f"{where}: token_ids")
    return fields.token_ids(drawn, f"{where}: token_ids")


def _alone(value: Any) -> Any:
    """A value that was written as a batch of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
