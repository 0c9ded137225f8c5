"""Which program wrote a file: told from its first row, or by whoever asks.

Left out on purpose: `records.jsonl` of tiltlab itself (storage/records.py), which needs no telling.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError
from tiltlab.records import inspect_log, lm_eval, nemo_rl, open_instruct, openai_batch, plain, prime_rl, trl, verl
from tiltlab.records.fields import Row, keys_of
from tiltlab.records.rows import ENDS, rows_of
from tiltlab.records.sample import Sample
from tiltlab.storage.incoming import MARK

FormatName = Literal[
    "inspect", "lm-eval", "verl", "trl", "prime-rl", "nemo-rl", "open-instruct", "openai", "plain",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """What one program writes.

    title: what people call it.
    fits: whether a row is of it.
    samples: its responses, from rows.
    """

    title: str
    fits: Callable[[Row], bool]
    samples: Callable[[Rows], Iterable[Sample]]


FORMATS: dict[FormatName, Format] = {
    "inspect": Format("a log of Inspect", inspect_log.fits, inspect_log.samples),
    "lm-eval": Format("samples of lm-evaluation-harness", lm_eval.fits, lm_eval.samples),
    "verl": Format("a dump of verl", verl.fits, verl.samples),
    "prime-rl": Format("traces of prime-rl", prime_rl.fits, prime_rl.samples),
    "nemo-rl": Format("a dump of NeMo-RL", nemo_rl.fits, nemo_rl.samples),
    "open-instruct": Format("rollouts of open-instruct", open_instruct.fits, open_instruct.samples),
    "openai": Format("a batch of an OpenAI-compatible server", openai_batch.fits, openai_batch.samples),
    "trl": Format("completions of TRL", trl.fits, trl.samples),
    "plain": Format("plain rows", plain.fits, plain.samples),
}


_OWN = {"task", "problem", "sample", "text", "reason", "logp", "ref_logp"}


def is_own(path: Path) -> bool:
    """Whether a file, or the one in a folder, is tiltlab's own records.jsonl, as far as its first line says.

    What is not there is too: its reader says that it is not.
    """
    file = path / "records.jsonl" if path.is_dir() else path
    if not file.exists() or file.suffix != ".jsonl":
        return not path.exists()
    try:
        with file.open("rb") as lines:
            first = next((line for line in lines if line.strip()), b"")
            row = json.loads(first.decode("utf-8").lstrip(MARK))
    except (OSError, ValueError, RecursionError):
        return file.name == "records.jsonl" or b"ref_logp" in first
    return isinstance(row, dict) and len(row.keys() & _OWN) >= len(_OWN) - 2


def is_plain(path: Path) -> bool:
    """Whether a file is JSONL with tiltlab's own names for its fields, or of no format that is known."""
    if path.is_dir() or path.suffix in (".json", ".parquet", ".eval"):
        return False
    try:
        return recognised(path)[0] in (None, "plain")
    except UserError:
        return True


def are_responses(path: Path) -> bool:
    """Whether a file or folder is one of responses, and not a model's."""
    if not path.is_dir():
        return path.suffix in ENDS or (path.is_file() and path.suffix != ".gguf")
    if (path / "records.jsonl").is_file():
        return True
    a_model = any((path / name).exists() for name in ("config.json", "adapter_config.json"))
    return not a_model and any(file.suffix in ENDS for file in path.rglob("*"))


def format_of(row: Row) -> FormatName | None:
    """Which format a row is of; None for none that is known."""
    return next((name for name, form in FORMATS.items() if form.fits(row)), None)


def recognised(path: Path, forced: FormatName | None = None) -> tuple[FormatName | None, Iterator[tuple[str, Row]]]:
    """The format of a file, and its rows.

    forced: the format that somebody says it is.

    The format is None where no reader is for it. Raises UserError for a file that cannot be read, or is empty.
    """
    rows = iter(rows_of(path))
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty; it needs a row for each response")
    where, row = first
    if forced is not None and not FORMATS[forced].fits(row) and forced != "plain":
        raise UserError(f"{where} is not {FORMATS[forced].title}: its keys are {keys_of(row)}")
    return forced or format_of(row), chain([first], rows)


def unknown(path: Path, row: Row) -> UserError:
    """The error for a file that no reader is for."""
    return UserError(
        f"{path} is of no format that is known (its keys are {keys_of(row)}); name its fields: "
        "--map text=FIELD,prompt=FIELD (docs/records.md)"
    )
