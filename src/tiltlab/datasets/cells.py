"""What one cell of a row says, as text: numbers of all kinds written out, chats taken apart; nothing is guessed.

Left out on purpose: dates, bytes and nested values. Whoever means them as text writes them as text.
"""

from collections.abc import Sequence
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

from tiltlab.errors import UserError, shown
from tiltlab.types import Message

ROLES = ("system", "developer", "user", "assistant", "tool")


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing: null, NaN (which pandas writes for null), blanks, or a list without items."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or cell == [] or (isinstance(cell, float) and isnan(cell))


def as_text(cell: Any) -> str | None:
    """Text as it stands, and a number in plain digits: 1e-05 would be read as an expression. None for anything else."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        return None
    if isinstance(cell, int):
        return str(cell)
    return f"{Decimal(repr(cell)) if isinstance(cell, float) else cell:f}" if isfinite(cell) else None


def id_of(cell: Any, where: str) -> str | None:
    """An id as text, None where there is none. 60 and 60.0, which a column of numbers with gaps becomes, are one.

    where: what a message calls the row.

    Raises UserError for what is neither text nor a number.
    """
    if is_empty(cell) and cell != []:
        return None
    text = as_text(cell)
    if text is None:
        raise UserError(f"{where} has the id {shown(cell)}; an id is text or a number, not a {type(cell).__name__}")
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else text


def chat_of(cell: Sequence[Any], where: str) -> tuple[Message, ...]:
    """Chat messages, as a row gives them.

    cell: a list with at least one item.
    where: what a message calls the row.

    Raises UserError for a message without role or text, and where the last one is not the user's: nobody would be
    asked.
    """
    chat = tuple(_message(message, f"{where}: message {i}") for i, message in enumerate(cell, start=1))
    if chat[-1]["role"] != "user" or is_empty(chat[-1]["content"]):
        raise UserError(f"{where}: the last message must be the user's, with the question; it is {shown(chat[-1])}")
    return chat


def chat_text(chat: Sequence[Message]) -> str:
    """What is said in a chat, without the instructions to the system: what makes it this question and no other."""
    return "\n\n".join(message["content"] for message in chat if message["role"] not in ("system", "developer"))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise UserError(f'{where} is {shown(message)}, not an object with "role" and "content"')
    given = {key: value for key, value in message.items() if value is not None}  # Parquet fills in what a row lacks
    if given.get("role") not in ROLES:
        raise UserError(f"{where} has the role {shown(given.get('role'))}; it must be one of {', '.join(ROLES)}")
    if "content" not in given or not all(isinstance(value, str) for value in given.values()):
        raise UserError(f"{where} is {shown(message)}; its content must be there, and be text, as all that it holds")
    return given
