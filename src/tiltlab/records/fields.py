"""Values out of a row of another program's file: as what they must be, or refused in one line that names row and key.

`where`, throughout: what a message calls the row.
"""

from collections.abc import Mapping
from math import fsum, isnan, nan
from typing import Any

from tiltlab.datasets.cells import as_text
from tiltlab.errors import UserError, shown
from tiltlab.storage.incoming import MOST, require_count, require_logp, require_number

Row = Mapping[str, Any]


def given(row: Row, key: str, where: str) -> Any:
    """What a row has under a key. Raises UserError where it has none."""
    if key not in row:
        raise UserError(f"{where} has no {key}; its keys are {keys_of(row)}")
    return row[key]


def text(row: Row, key: str, where: str) -> str:
    """A text, or the text of a message's parts. Raises UserError for what is none."""
    return content(given(row, key, where), f"{where}: {key}")


def content(value: Any, where: str) -> str:
    """The text of a message: as it stands, or its parts that are text. Raises UserError for what is neither."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, where) for part in value)
    raise UserError(f"{where} cannot be {shown(value)}; it must be text")


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise UserError(f"{where} cannot hold {shown(part)}; it must be text")
    return content(part["text"], where) if "text" in part else ""


def chat(value: Any, where: str) -> str:
    """What the user says in a prompt: the text itself, or that of the chat's messages but the system's."""
    if isinstance(value, list) and all(isinstance(message, dict) and "role" in message for message in value):
        said = [message for message in value if message["role"] not in ("system", "developer")]
        return "\n\n".join(content(message.get("content") or "", where) for message in said)
    return content(value, where)


def items(row: Row, key: str, where: str) -> list[Any]:
    """A list, which may be missing. Raises UserError for anything else."""
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} cannot be {shown(value)}; it must be a list")
    return value


def mapping(row: Row, key: str, where: str) -> Row:
    """An object, which may be missing. Raises UserError for anything else."""
    value = row.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} cannot be {shown(value)}; it must be an object")
    return value


def count(row: Row, key: str, where: str) -> int | None:
    """A whole number, None where it is missing. Raises UserError for anything else."""
    return None if row.get(key) is None else require_count(row[key], f"{where}: {key}")


def truth(row: Row, key: str, where: str) -> bool | None:
    """True or false, None where it is missing. Raises UserError for anything else."""
    value = row.get(key)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{where}: {key} cannot be {shown(value)}; it must be true or false")
    return value


def name(row: Row, key: str, where: str) -> str:
    """An id, which may be a number; empty where it is missing. Raises UserError for anything else."""
    value = row.get(key)
    if value is None:
        return ""
    said = str(int(value)) if isinstance(value, float) and value.is_integer() else as_text(value)
    if said is None:
        raise UserError(f"{where}: {key} cannot be {shown(value)}; an id is text or a number")
    return said


def gold(value: Any) -> str:
    """A gold answer, where it is a text or a number or the only one of a list; else empty."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return as_text(value) or ""


def grade(value: Any, where: str) -> float:
    """A grade: a number or a truth, NaN for null. Raises UserError for anything else."""
    return float(value) if isinstance(value, bool) else require_number(value, where)


def summed(values: Any, where: str) -> float:
    """The sum of the tokens' log-probabilities, in nats; NaN where there are none, or one is not known.

    Raises UserError for what holds something else.
    """
    if values is None or values == []:
        return nan
    if not isinstance(values, list):
        raise UserError(f"{where} cannot be {shown(values)}; it must be a list of log-probabilities")
    known = [require_logp(value, f"{where}[{i}]") for i, value in enumerate(values)]
    return nan if any(isnan(value) for value in known) else fsum(known)


def whole(logp: float, held: int, tokens: int | None) -> float:
    """A sum over all tokens of a response; NaN where some were left out: the end, or thoughts that are not shown.

    held: how many it is a sum over. tokens: how many were drawn; None or 0 where nobody knows.
    """
    return nan if tokens and tokens != held else logp


def token_ids(values: Any, where: str) -> tuple[int, ...]:
    """Token ids. Raises UserError for what are none."""
    if not isinstance(values, list):
        raise UserError(f"{where} cannot be {shown(values)}; it must be a list of token ids")
    for i, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
            raise UserError(f"{where}[{i}] cannot be {shown(value)}; it must be a token id")
    return tuple(values)


def masked(values: Any, mask: list[Any], where: str) -> list[Any]:
    """The values of the tokens that were drawn. Raises UserError where there are not as many as there are tokens."""
    if not isinstance(values, list) or len(values) != len(mask):
        held = f"{len(values)} values" if isinstance(values, list) else shown(values)
        raise UserError(f"{where} holds {held}, and its mask {len(mask)}; they go by token")
    return [value for value, drawn in zip(values, mask, strict=True) if drawn]


def ended(reason: Any, where: str) -> bool | None:
    """Whether a response came to its end, by its finish reason; None where that does not say."""
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise UserError(f"{where} cannot be {shown(reason)}; it must be text, as stop or length")
    if reason in ("stop", "eos", "end_turn", "stop_sequence", "tool_calls", "eos_token", "completed"):
        return True
    if reason in ("length", "max_tokens", "model_length", "content_filter", "abort", "max_length"):
        return False
    return None


def at(value: Any, path: str) -> Any:
    """What stands at a path as `choices.0.text`; None where nothing does."""
    if isinstance(value, dict) and path in value:  # a key with a dot in it
        return value[path]
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.lstrip("-").isdecimal() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def keys_of(row: Row) -> str:
    """The keys of a row, for messages."""
    return shown(", ".join(map(str, row)))[1:-1] or "none"
