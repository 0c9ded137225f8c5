"""open-instruct: `{run}_rollouts_{shard}.jsonl` of save_traces.

Field names from open_instruct/rl_utils.py (`RolloutRecord`): step, sample_idx, prompt_idx (within its step: another
step's is another prompt), prompt_tokens, response_tokens, reward, advantage, finish_reason, dataset, ground_truth,
request_info, logprobs (null where the engine gave none).

It holds token ids and no text: with a tokenizer they are read, and without one only its own grades can be.
It lacks log-probabilities under the base.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from tiltlab.datasets.files import Rows
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample

Decode = Callable[[Sequence[int]], str]
"""Token ids to text, without special tokens."""


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"prompt_tokens", "response_tokens"} <= row.keys()


def samples(rows: Rows, decode: Decode | None = None) -> Iterator[Sample]:
    """The responses of the rows, in order.

    decode: where the tokenizer is known; else texts are empty, and a prompt is known by its tokens.

    Raises UserError, naming the row, for one that cannot be used.
    """
    for where, row in rows:
        prompt = fields.token_ids(row.get("prompt_tokens"), f"{where}: prompt_tokens")
        ids = fields.token_ids(row.get("response_tokens"), f"{where}: response_tokens")
        yield Sample(
            where,
            decode(ids) if decode else "",
            prompt=decode(prompt) if decode else "",
            problem="" if decode else f"prompt {hashlib.sha256(repr(prompt).encode()).hexdigest()[:12]}",
            complete=fields.ended(row.get("finish_reason"), f"{where}: finish_reason"),
            tokens=len(ids),
            logp=fields.summed(row.get("logprobs"), f"{where}: logprobs"),
            grades={"reward": fields.grade(row.get("reward"), f"{where}: reward")},
            gold=fields.gold(row["ground_truth"]) if isinstance(row.get("ground_truth"), str) else "",
            step=fields.count(row, "step", where),
            ids=ids,
        )
