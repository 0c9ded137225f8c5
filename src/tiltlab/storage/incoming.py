"""Text and JSON that come in from outside: read as what they are, or refused in one line that names the place.

`where`, throughout: what a message calls the place of a value, such as "rows.jsonl line 3: tokens".

Left out on purpose: encodings other than UTF-8, and guesses at them. What a byte was meant to be, its writer knows.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from tiltlab.errors import UserError, brief, shown

MOST = 2**53
"""More tokens or samples than this, no one has; and floats count no further."""

ROUNDING = 0.01
"""Nats. Where every token of a long response is certain, rounding alone may take the sum of their log-probabilities a
little above 0."""

MARK = "\ufeff"
"""The byte order mark, which some programs put before a text, and twice where two of them saved it."""


def decoded(data: bytes, path: object) -> str:
    """The text of a file, without a byte order mark.

    path: what a message calls the file.

    Raises UserError, naming line and byte, where it is not UTF-8.
    """
    try:
        return data.decode("utf-8").lstrip(MARK)
    except UnicodeDecodeError as error:
        line, start = data.count(b"\n", 0, error.start) + 1, data.rfind(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} line {line} cannot be read as UTF-8: its byte {error.start - start + 1} is "
            f"0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line that is not blank. The last one counts whether or not a line break ends
    it."""
    for number, line in enumerate(text.split("\n"), start=1):
        if bare := line.strip().strip(MARK):
            yield number, bare


def parsed(text: str, where: str, wanted: str = "") -> Any:
    """The JSON value that a text is.

    where: what a message calls its place.
    wanted: what a message says belongs there.

    Raises UserError where it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = brief(error, 200)
        raise UserError(f"{where} is not JSON" + (f" ({why}); {wanted}" if wanted else f": {why}")) from error


def require_whole(value: Any, where: str) -> None:
    """Check that a JSON value can be written as UTF-8.

    Raises UserError for a text with half a character in it, which JSON can spell and UTF-8 cannot hold, and for a value
    that is nested too deep.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds half a character (a \\ud800-\\udfff escape without its pair); write the whole character"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where} is not JSON that can be used: it is nested too deep") from error


def written_out(text: str) -> str:
    """The same text, with the number of each half a character in its place: UTF-8 cannot hold one."""
    return text.encode("utf-8", "backslashreplace").decode()


def require_count(value: Any, where: str) -> int:
    """A whole number of things. Raises UserError for what is none: text, true, -1, 2.5, or one beyond all counting."""
    whole = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST and value == int(value)
    )
    if not whole:
        raise UserError(f"{where} cannot be {shown(value)}; it must be a whole number from 0 on")
    return int(value)


def require_number(value: Any, where: str) -> float:
    """A number, NaN for null. Raises UserError for text, true, infinity, and what no float holds."""
    if value is None:
        return math.nan
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value):
            return float(value)
    except OverflowError:
        pass
    raise UserError(f"{where} cannot be {shown(value)}; it must be a finite number, or null where it is not known")


def require_logp(value: Any, where: str) -> float:
    """The log-probability of a response, NaN for null. Raises UserError for what is none, as a positive number is."""
    logp = require_number(value, where)
    if logp > ROUNDING:
        raise UserError(f"{where} cannot be {shown(value)}; a log-probability is 0 or less (null: not known)")
    return logp
