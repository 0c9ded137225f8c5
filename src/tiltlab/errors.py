"""Errors that are the user's to mend: one line that says what was wrong, where, and what to do."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT

LONGEST = 1000
"""Characters. A text that is longer than any that is written here holds somebody's data, and is cut to `CUT`."""

CUT = 300


class UserError(Exception):
    """Bad input: a recipe, a model, a data file or a reward that cannot be used as given. Exit code 2.

    texts: what is wrong, a line for each thing.

    Each of its `lines` is printable, however long or odd the values are that it tells of.
    """

    def __init__(self, *texts: str) -> None:
        self.lines = [brief(text, CUT if len(text) > LONGEST else LONGEST) for text in texts]
        super().__init__(*self.lines)

    def __str__(self) -> str:
        return "; ".join(self.lines)


class AtKey(UserError):
    """A UserError that another value for a key of the recipe mends.

    key: its name within its section of the recipe.
    text: what is wrong.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key

    def __reduce__(self) -> tuple[type["AtKey"], tuple[str, str]]:
        return AtKey, (self.key, str(self))


@contextmanager
def gathered(wrong: list[str], section: str = "") -> Iterator[None]:
    """Collect what a UserError in the block says, to be told with whatever else is wrong.

    wrong: the lines so far, to which those of the error are added.
    section: of the recipe, that the block is about, as --set names it.
    """
    try:
        yield
    except AtKey as error:
        wrong += [f"{error} (--set {section}.{error.key}=...)" if section else str(error)]
    except UserError as error:
        wrong += error.lines


class Stopped(Exception):
    """The work was asked to stop, by Ctrl-C or another signal, and has saved where it was.

    signal: its number, SIGINT where left out. Exit code 128 + signal.
    """

    signal: int = SIGINT


class Interrupted(BaseException):
    """The process was told by a signal to end at once.

    signal: its number. Exit code 128 + signal.

    Not an Exception: nobody is to go on after it; nor a KeyboardInterrupt: the library of the command line would take
    it for its own.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def brief(said: object, most: int = CUT) -> str:
    """What an exception or anything else says, as one printable line.

    said: anything that has a text.
    most: characters; a longer text loses its middle.
    """
    text = str(said)
    if len(text) > most:
        text = f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def said(error: BaseException) -> str:
    """An error and its kind, as one line of no great length."""
    return brief(f"{type(error).__name__}: {error}")


def words(error: BaseException | None) -> str:
    """An error's own words, without its kind, as one line of at most 200 characters.

    Of an error from the operating system, what that says, without number and path.
    """
    return brief(getattr(error, "strerror", None) or error, 200)


def shown(value: object) -> str:
    """A value as Python writes it, cut short: never long, whatever it is."""
    try:
        return brief(_short.repr(value), 120)
    except ValueError:  # a number of more digits than Python will write
        return f"<{type(value).__name__}>"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 3
