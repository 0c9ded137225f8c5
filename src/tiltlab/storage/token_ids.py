"""Token ids of responses on the disk: ids.jsonl, a line a response, beside records.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError, shown
from tiltlab.storage.files import Json, numbered
from tiltlab.storage.incoming import parsed

TokenIds = Mapping[tuple[str, int], tuple[int, ...]]
"""Token ids of responses, by problem and sample."""

LARGEST = 2**31
"""No vocabulary has a token of this number."""


def ids_line(problem: str, sample: int, ids: Sequence[int]) -> Json:
    """The token ids of a response as a line of ids.jsonl."""
    return {"problem": problem, "sample": sample, "ids": ids}


def read_ids(path: Path) -> TokenIds:
    """The token ids of a file; none where there is no file.

    Raises UserError, naming the line, for one that holds none.
    """
    ids: dict[tuple[str, int], tuple[int, ...]] = {}
    for number, text in numbered(path):
        where = f"{path} line {number}"
        line = parsed(text, where)
        if not _is_line(line):
            raise UserError(f'{where} holds no token ids: it must be {{"problem": id, "sample": number, "ids": [...]}}')
        tokens: list[Any] = line["ids"]
        wrong = next((t for t in tokens if type(t) is not int or not 0 <= t < LARGEST), None)
        if wrong is not None:
            raise UserError(f"{where}: {shown(wrong)} is no token id")
        ids[line["problem"], line["sample"]] = tuple(tokens)
    return ids


def _is_line(line: Any) -> bool:
    kinds = {"problem": str, "sample": int, "ids": list}
    return isinstance(line, dict) and all(type(line.get(key)) is kind for key, kind in kinds.items())
