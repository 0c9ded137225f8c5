"""verl: `{step}.jsonl` of trainer.rollout_data_dir and trainer.validation_data_dir.

Field names from verl/trainer/ppo/v1/trainer_base.py (`_write_generations`): input, output, gts, score, step, and what
the reward function returns beside its score (acc, pred, ...). Prompt and response are decoded without special tokens,
so that a chat template leaves the words "system", "user" and "assistant" behind.

It lacks the finish reason, lengths, ids and log-probabilities, but where `tiltlab export verl` wrote the run: its rows
have the grader "tiltlab", problem, complete and tokens, those of validation also reason, answer and ids, and those of
training logp and ref_logp. Under another grader, keys that are called so may hold anything, and are not read.
"""

from collections.abc import Iterator

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample
from tiltlab.storage.incoming import require_logp

GRADES: tuple[str, ...] = ("acc", "score")
"""What the reward function says of the answer alone, and the reward."""


OURS = "tiltlab"
"""The grader of runs that `tiltlab export verl` wrote."""


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return {"input", "output", "score"} <= row.keys()


def samples(rows: Rows) -> Iterator[Sample]:
    """The responses of the rows, in order. Raises UserError, naming the row, for one that cannot be used."""
    for where, row in rows:
        grades = {key: fields.grade(row[key], f"{where}: {key}") for key in GRADES if key in row}
        own = row if row.get("grader") == OURS else {}
        answer = own.get("answer", row.get("pred"))
        yield Sample(
            where,
            fields.text(row, "output", where),
            prompt=fields.text(row, "input", where),
            problem=fields.name(own, "problem", where),
            complete=fields.truth(own, "complete", where),
            tokens=fields.count(own, "tokens", where) or 0,
            logp=require_logp(own.get("logp"), f"{where}: logp"),
            ref_logp=require_logp(own.get("ref_logp"), f"{where}: ref_logp"),
            grades=grades,
            answer=answer if isinstance(answer, str) else None,
            unread=own.get("reason") == "no_answer",
            gold=fields.gold(row.get("gts")),
            step=fields.count(row, "step", where),
            ids=_ids(own.get("ids"), f"{where}: ids"),
        )


def _ids(value: object, where: str) -> tuple[int, ...]:
    """Token ids, which verl's dumps hold as a text: of a list of numbers verl would take the mean."""
    if value is None:
        return ()
    parts = value.split(" ") if isinstance(value, str) else [""]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise UserError(f"{where} cannot be {shown(value)}; it must be token ids, with a blank between two")
    return tuple(map(int, parts))
