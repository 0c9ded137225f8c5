"""A task's problems as the rows that verl reads, prompts written out as the model is to read them.

Left out on purpose: chat templates on verl's side. Its transformers, its clock and its tokenizer's settings are others'
than tiltlab's; a text that is tokenized as it stands is one prompt everywhere.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tiltlab.errors import UserError, shown
from tiltlab.models.codec import Codec
from tiltlab.tasks.base import Task
from tiltlab.types import Problem

_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("index", pa.int64()), ("id", pa.string()), ("question", pa.string())]),
        ),
    ]
)


def prompts_of(task: Task, problems: Sequence[Problem], codec: Codec, max_tokens: int) -> tuple[dict[str, str], int]:
    """The prompt of each problem by its id, as text, and how many tokens the longest has.

    max_tokens: how many are to follow.

    Raises UserError for a prompt that the model cannot take, and for one that no text stands for token by token.
    """
    told, longest = {}, 0
    for problem in problems:
        ids = codec.encode(task.render(problem), max_tokens)
        told[problem.id] = written(codec, ids)
        longest = max(longest, len(ids))
    return told, longest


def written(codec: Codec, ids: Sequence[int]) -> str:
    """The text that these tokens are read from, special tokens included. Raises UserError where there is none."""
    text: str = codec.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    again = codec.tokenizer(text, add_special_tokens=False)["input_ids"]
    if list(again) != list(ids):
        raise UserError(
            f"a prompt cannot be carried over to verl, which would read it as {len(again)} other tokens than the "
            f"{len(ids)} that {codec.name} is given here; it begins {shown(text)}"
        )
    return text


def parquet(task: Task, problems: Iterable[Problem], prompts: dict[str, str]) -> bytes:
    """A row for each problem, in order, as a Parquet file.

    prompts: by problem id.
    """
    rows = [_row(task.name, i, problem, prompts[problem.id]) for i, problem in enumerate(problems)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def _row(task: str, index: int, problem: Problem, prompt: str) -> dict[str, Any]:
    return {
        "data_source": task,
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "id": problem.id, "question": problem.question},
    }
