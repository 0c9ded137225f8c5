"""The folders that trainers and other programs leave, as docs/your-run.md begins with them."""

from collections.abc import Callable
from pathlib import Path

from tests.records import writers
from tests.records.study import drawn, written_task
from tiltlab.types import Record

PAIRS: dict[str, Callable[[list[Record], Path], Path]] = {
    "prime-rl": writers.prime_rl,
    "nemo-rl": writers.nemo_rl,
    "open-instruct": writers.open_instruct,
    "lm-eval": writers.lm_eval,
    "inspect": writers.inspect_eval,
    "batch": writers.openai,
    "plain": writers.plain,
}
"""Programs of which the base and the tuned model have a folder each."""


def write_folders(folder: Path) -> None:
    """problems.jsonl, and for each program its folder with a base and a tuned model in it."""
    base, tuned = drawn("only the format learnt")
    written_task(folder)
    for step, records in ((0, base), (500, tuned)):
        writers.lines(folder / f"verl/validation/{step}.jsonl", writers.verl_rows(records, step))
        writers.trl(records, folder / "trl/completions", step)
    for name, write in PAIRS.items():
        for side, records in (("base", base), ("tuned", tuned)):
            write(records, folder / name / side)
    (folder / "tokenizer").mkdir()  # a folder of rollouts with a tokenizer in it is taken for a model
    for side in ("base", "tuned"):
        (folder / f"open-instruct/{side}/tokenizer.json").replace(folder / "tokenizer/tokenizer.json")
