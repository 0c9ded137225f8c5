"""TRL: `completions/completions_{step}.parquet` of log_completions.

Column names from trl/trainer/grpo_trainer.py (`GRPOTrainer.log`): step, prompt, completion, a column for each reward
function under its name (`reward` in older versions), columns of the user's own, advantage. A reward function that has
nothing to say of a sample leaves a gap.

It lacks the finish reason, lengths, ids and log-probabilities.
"""

from collections.abc import Iterator

from tiltlab.datasets.files import Rows
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample

_NO_GRADE = ("step", "prompt", "completion", "advantage", "__index_level_0__")


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"prompt", "completion"} <= row.keys() and ("advantage" in row or "step" in row)


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        yield Sample(
            where,
            fields.chat(fields.given(row, "completion", where), f"{where}: completion"),
            prompt=fields.chat(fields.given(row, "prompt", where), f"{where}: prompt"),
            grades={
                key: fields.grade(value, f"{where}: {key}")
                for key, value in row.items()
                if key not in _NO_GRADE and (value is None or isinstance(value, bool | int | float))
            },
            step=fields.count(row, "step", where),
        )
