"""verl: `{step}.jsonl` of trainer.rollout_data_dir and trainer.validation_data_dir.

Field names from verl/trainer/ppo/ray_trainer.py (`_dump_generations`): input, output, gts, score, step, and what the
reward function returns beside its score (acc, pred, ...). Prompt and response are decoded without special tokens, so
that a chat template leaves the words "system", "user" and "assistant" behind.

It lacks the finish reason, lengths, ids and log-probabilities.
"""

from collections.abc import Iterator

from tiltlab.datasets.files import Rows
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample

GRADES: tuple[str, ...] = ("acc", "score")
"""What the reward function says of the answer alone, and the reward."""


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"input", "output", "score"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        grades = {key: fields.grade(row[key], f"{where}: {key}") for key in GRADES if key in row}
        answer = row.get("pred")
        yield Sample(
            where,
            fields.text(row, "output", where),
            prompt=fields.text(row, "input", where),
            grades=grades,
            answer=answer if isinstance(answer, str) else None,
            gold=fields.gold(row.get("gts")),
            step=fields.count(row, "step", where),
        )
