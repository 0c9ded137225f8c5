"""What pydantic has to say of a recipe, in the recipe's own terms."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tiltlab.errors import shown

MOST_TOLD = 20
"""Complaints at once: whoever has more has mistaken the file."""

PLAIN = ("int", "float", "bool", "str")
"""What pydantic calls the kinds that are no section."""


def complaints(error: ValidationError, data: Any) -> list[str]:
    """One line for each thing that is wrong, the first twenty of them.

    error: what pydantic raised.
    data: what it was given, a tree of plain values.
    """
    details = error.errors()
    words = {detail["loc"][:-1]: detail["ctx"]["expected"] for detail in details if detail["type"] == "literal_error"}
    said = [_said(detail, data, words.get(detail["loc"][:-1])) for detail in _first_readings(details, data)]
    return said[:MOST_TOLD] + [f"and {len(said) - MOST_TOLD} more"] * (len(said) > MOST_TOLD)


def _first_readings(details: Sequence[ErrorDetails], data: Any) -> Iterator[ErrorDetails]:
    """Where a value may be one of several kinds and is none, pydantic complains of each; the first is told."""
    first: dict[tuple[int | str, ...], int | str] = {}
    for detail in details:
        kinds = [i for i, role in enumerate(_roles(detail, data)) if role == "kind"]
        if all(first.setdefault(detail["loc"][:i], detail["loc"][i]) == detail["loc"][i] for i in kinds):
            yield detail


def _roles(detail: ErrorDetails, data: Any) -> Iterator[Literal["key", "tag", "kind"]]:
    """What each part of a place is: a key of the user's; or, put in by pydantic, the arm or task that stands there, or
    the kind of value that it tried there."""
    loc, value, tagged = detail["loc"], data, False
    for i, part in enumerate(loc):
        if not tagged and part in (_tag(value, "arm"), _tag(value, "task")):
            tagged = True
            yield "tag"
        elif _holds(value, part):
            value, tagged = value[part], False
            yield "key"
        else:
            yield "key" if detail["type"] == "missing" and i == len(loc) - 1 else "kind"


def _tag(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else value


def _holds(value: Any, part: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _said(detail: ErrorDetails, data: Any, word: str | None) -> str:
    """word: that would do in place of a value of the kind that was tried, as `auto` does where a number may stand."""
    where, context = _where(detail, data), detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{where} is no key of its section"
        case "missing":
            return f"{where} is missing"
        case "union_tag_invalid":
            kind = context["discriminator"].strip("'")
            return f"{where}: unknown {kind} {shown(context['tag'])}; it is one of {context['expected_tags']}"
        case "value_error":
            return f"{where + ': ' if where else ''}{context['error']}"
    other = f", or {word}" if word and detail["type"] != "literal_error" else ""
    return f"{where}: {detail['msg']}{other}, got {shown(detail['input'])}"


def _where(detail: ErrorDetails, data: Any) -> str:
    """A place as people write it, lists counted from 1. Which arm or task stands there goes without saying, and so does
    that a plain value was tried."""
    where = ""
    for part, role in zip(detail["loc"], _roles(detail, data), strict=True):
        if role == "key" or (role == "kind" and part not in PLAIN):
            where += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if where else part
    return where
