"""Small data files."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def jsonl(path: Path, *items: object) -> str:
    """Texts are lines as they stand."""
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return str(path)


def written(path: Path, items: list[Mapping[str, Any]]) -> str:
    """Rows in the kind of file that the path names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".jsonl":
            return jsonl(path, *items)
        case ".json":
            path.write_text(json.dumps(items, indent=1))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(items), path)
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(items[0]))
                writer.writeheader()
                writer.writerows(items)
    return str(path)
