"""A figure for a model's page on the Hugging Face hub: a file of its `.eval_results` folder.

The format is the hub's (huggingface.co/docs/hub/eval-results, 2026): a list of entries, each with the data set's id,
the task's id within it, and a value.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import yaml

from tiltlab.datasets.registry import SETS
from tiltlab.errors import UserError
from tiltlab.report.evaluation import figures_of
from tiltlab.storage.files import write_text
from tiltlab.types import Record


def write_eval_results(path: Path, records: Sequence[Record], about: str, day: dt.date) -> None:
    """Write the accuracy of an evaluation, in per cent.

    about: how it was made, in a line.
    day: when.

    Raises UserError for a task that is no data set of the hub, for records of several tasks, and where the file cannot
    be written.
    """
    tasks = sorted({record.task for record in records})
    if len(tasks) > 1 or tasks[0] not in SETS:
        raise UserError(
            f"the hub takes figures on its own data sets, one at a time, and these records are of {', '.join(tasks)}; "
            f"it knows {', '.join(SETS)}"
        )
    figures = figures_of(path.stem, records)
    low, high = (100 * end for end in (figures.accuracy.low, figures.accuracy.high))
    notes = f"mean over {figures.n} samples a problem, 95 % interval {low:.2f} to {high:.2f}; {about}"
    entry = {
        "dataset": {"id": SETS[tasks[0]].hub, "task_id": tasks[0]},
        "value": round(100 * figures.accuracy.value, 2),
        "date": day.isoformat(),
        "notes": notes,
    }
    write_text(path, yaml.safe_dump([entry], sort_keys=False, allow_unicode=True))
