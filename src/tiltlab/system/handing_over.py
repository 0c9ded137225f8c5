"""Pieces of work as other processes get them, and the messages that come back: ("told", news) and ("ended", error).

Left out on purpose: whose processes these are (process_pool.py, ranks.py).
"""

import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from tiltlab.errors import UserError, said
from tiltlab.system.program import Parent

Piece = Callable[..., None]
"""Called as piece(tell=..., stopping=..., device=...)."""


def pickled(pieces: Sequence[Piece]) -> list[bytes]:
    """Pieces of work as they are sent. Raises UserError for one that cannot be."""
    try:
        return [pickle.dumps(piece) for piece in pieces]
    except Exception as error:
        raise _not_sent(error) from error


def teller(parent: Parent) -> Callable[..., None]:
    """What passes news on to the parent."""

    def tell(*news: Any) -> None:
        parent.send(pickle.dumps(("told", news)))

    return tell


def outcome(message: bytes, **given: Any) -> bytes:
    """Do the piece of work in a message, and say how it ended: with None, or with the error.

    given: what the piece is called with.
    """
    try:
        piece = pickle.loads(message)  # of the parent's making
    except Exception as error:
        return pickle.dumps(("ended", _not_sent(error)))
    try:
        piece(**given)
        return pickle.dumps(("ended", None))
    except BaseException as error:
        return _pickled_error(error)


def _pickled_error(error: BaseException) -> bytes:
    """With its traceback as a note."""
    trace = traceback.format_exc()
    error.add_note(f"in a worker process:\n{trace}")
    try:
        message = pickle.dumps(("ended", error))
        pickle.loads(message)
    except Exception:  # an error of a library's own make
        message = pickle.dumps(("ended", RuntimeError(f"a piece of work raised {said(error)}\n{trace}")))
    return message


def _not_sent(error: Exception) -> UserError:
    return UserError(
        f"the work cannot be handed to worker processes ({said(error)}): what it is made of must be importable, and so "
        "not defined in a script or notebook; or use one job"
    )
