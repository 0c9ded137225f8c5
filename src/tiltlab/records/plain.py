"""JSONL of any program, where somebody says what its fields are: `--map text=response,prompt=question`.

Fields are named by paths as `choices.0.text`. A text that is a list holds several responses to one prompt; what goes
by response (reward, tokens, ...) is then a list too.

Without a map the fields are those of tiltlab's own: text, and prompt, question or problem.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, shown
from tiltlab.records import fields
from tiltlab.records.fields import Row
from tiltlab.records.sample import Sample
from tiltlab.storage.incoming import require_count, require_logp

NAMES = (
    *("text", "prompt", "problem", "task", "sample", "complete", "finish", "tokens", "logp", "ref_logp"),
    *("reward", "answer", "gold", "step"),
)
_SHARED = ("prompt", "problem", "task", "gold", "step")
"""Of the prompt: one for all of its responses."""


def fits(row: Row) -> bool:
    """Whether a row needs no map."""
    return "text" in row and not row.keys().isdisjoint(("prompt", "question", "problem"))


def read_map(said: str) -> dict[str, str]:
    """`text=response,prompt=question` by name. Raises UserError for what is no such map."""
    paths = {}
    for part in filter(None, (part.strip() for part in said.split(","))):
        name, equals, path = part.partition("=")
        if not equals or name.strip() not in NAMES or not path.strip():
            raise UserError(
                f"--map cannot have {shown(part)}; write NAME=FIELD, where NAME is one of {', '.join(NAMES)}"
            )
        paths[name.strip()] = path.strip()
    if "text" not in paths:
        raise UserError("--map names no text; add text=FIELD, the field that holds the response")
    return paths


def samples(rows: Rows, paths: Mapping[str, str] | None = None) -> Iterator[Sample]:
    """The responses of the rows, in order.

    paths: of fields, by name; each name itself where left out.

    Raises UserError, naming the row, for one that cannot be used.
    """
    for where, row in rows:
        found = {name: fields.at(row, (paths or {}).get(name, name)) for name in NAMES if not paths or name in paths}
        if not paths and found["prompt"] is None:
            found["prompt"] = row.get("question")
        if found["text"] is None:
            path = (paths or {}).get("text", "text")
            raise UserError(f"{where} has no response: nothing stands at {path}; its keys are {', '.join(row)[:200]}")
        for one in _each(found, where):
            yield _sample(one, where)


def _each(found: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    texts = found["text"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        yield found
        return
    for name, values in found.items():
        if name not in _SHARED and isinstance(values, list) and len(values) != len(texts):
            raise UserError(f"{where}: {name} holds {len(values)} values for {len(texts)} responses")
    for i in range(len(texts)):
        yield {
            name: values[i] if name not in _SHARED and isinstance(values, list) else values
            for name, values in found.items()
        }


def _sample(found: Row, where: str) -> Sample:
    complete, prompt = fields.truth(found, "complete", where), found.get("prompt")
    reward, answer = found.get("reward"), found.get("answer")
    return Sample(
        where,
        fields.content(found["text"], f"{where}: text"),
        prompt="" if prompt is None else fields.chat(prompt, f"{where}: prompt"),
        problem=fields.name(found, "problem", where),
        task=fields.name(found, "task", where),
        number=fields.count(found, "sample", where),
        complete=fields.ended(found.get("finish"), f"{where}: finish") if complete is None else complete,
        tokens=require_count(found.get("tokens") or 0, f"{where}: tokens"),
        logp=require_logp(found.get("logp"), f"{where}: logp"),
        ref_logp=require_logp(found.get("ref_logp"), f"{where}: ref_logp"),
        grades={} if reward is None else {"reward": fields.grade(reward, f"{where}: reward")},
        answer=None if answer is None else fields.gold(answer),
        gold=fields.gold(found.get("gold")),
        step=fields.count(found, "step", where),
    )
