"""Records as Parquet, and as a folder that `datasets.load_dataset` reads."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tiltlab.storage.files import make_folder, write_bytes, write_text
from tiltlab.storage.incoming import written_out
from tiltlab.storage.records import record_line
from tiltlab.types import Record

Questions = Mapping[str, Sequence[str]]
"""Question and gold answer by problem id, as far as they are known."""

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "problem", "question", "gold")),
        ("sample", pa.int64()),
        *((name, pa.string()) for name in ("text", "answer")),
        ("reward", pa.float64()),
        ("reason", pa.string()),
        ("tokens", pa.int64()),
        ("complete", pa.bool_()),
        ("logp", pa.float64()),
        ("ref_logp", pa.float64()),
    ]
)


def write_parquet(path: Path, records: Sequence[Record], questions: Questions) -> None:
    """Write records as one Parquet file, a row a response, whole or not at all.

    The columns are those of records.jsonl, with the question and the gold answer; null where nobody knows.

    Raises UserError where it cannot be written.
    """
    rows = []
    for record in records:
        question, gold = questions.get(record.problem, (None, None))
        rows.append(record_line(record) | {"question": question, "gold": gold})
    whole = [{k: written_out(value) if isinstance(value, str) else value for k, value in row.items()} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(whole, schema=_SCHEMA), buffer)
    write_bytes(path, buffer.getvalue())


def write_dataset(folder: Path, records: Sequence[Record], questions: Questions, title: str) -> None:
    """Write records as a folder that `datasets.load_dataset(folder)` reads, with a card.

    folder: made where it is not there.
    title: of the card.

    Raises UserError where it cannot be written.
    """
    make_folder(folder / "data")
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", records, questions)
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": "data/test-*.parquet"}]}],
        "tags": ["tiltlab"],
    }
    text = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n"
    text += (
        f"{len(records)} graded responses, a row each. `logp` and `ref_logp` are sums over tokens in nats, at "
        "temperature 1, under the model that drew the response and under its reference; null where nobody knows.\n"
    )
    write_text(folder / "README.md", text)
