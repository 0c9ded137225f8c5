"""What is printed, and where to: whatever the text holds, and whatever becomes of the output."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from rich.text import Text

from tiltlab.errors import UserError, words
from tiltlab.system.visible import on_one_line


def line(*parts: str | tuple[str, str], style: str = "") -> Text:
    """Plain text for a console, whatever it holds: no markup, nothing unseen.

    parts: texts, each perhaps with a style of rich's.
    style: of all of it.
    """
    shown = (on_one_line(part) if isinstance(part, str) else (on_one_line(part[0]), part[1]) for part in parts)
    return Text.assemble(*shown, style=style)


class Steady:
    """A standard stream whose writes always end well: what its encoding lacks is written out, and a reader that has
    gone misses the rest.

    stream: asked for at each write, as it may be exchanged meanwhile.
    mute: never raise. Else UserError is raised where output finds no room.
    """

    def __init__(self, stream: Callable[[], TextIO], *, mute: bool = False) -> None:
        self._stream, self._mute = stream, mute

    def write(self, text: str) -> int:
        """Write a text, and return its length in characters."""
        encoding = getattr(self._stream(), "encoding", None) or "utf-8"
        held = text.encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self._stream().write(held))
        return len(text)

    def flush(self) -> None:
        """Write what the stream still holds."""
        self._try(lambda: self._stream().flush())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream(), name)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            with suppress(OSError, AttributeError):  # no file, or none of its own
                _lead_nowhere(self._stream().fileno())
            if not (self._mute or isinstance(error, BrokenPipeError)):
                raise UserError(f"the output cannot be written: {words(error)}") from error


def _lead_nowhere(number: int) -> None:
    """What a stream still holds, and all that comes, is dropped: else Python would try again, and fail, as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


stdout = cast(TextIO, Steady(lambda: sys.stdout))
stderr = cast(TextIO, Steady(lambda: sys.stderr, mute=True))


@contextmanager
def steady() -> Iterator[None]:
    """Within, standard output and error are steady for everybody; one that was closed leads nowhere."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        out, err = sys.stdout or nowhere, sys.stderr or nowhere
        with (
            redirect_stdout(cast(TextIO, Steady(lambda: out))),
            redirect_stderr(cast(TextIO, Steady(lambda: err, mute=True))),
        ):
            yield
