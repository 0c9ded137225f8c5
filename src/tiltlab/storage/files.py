"""Files that are there whole or not at all, JSON and JSONL read back, and names that any disk takes.

A whole file appears under its name in one rename, after it is complete; of a file that grows line by line, a last line
that was not written to its end is left out.

Left out on purpose: what is in them (records.py, shapes.py), and where they lie (run_folder.py).
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError, words
from tiltlab.storage.folder import cannot_write
from tiltlab.storage.incoming import decoded, numbered_lines, parsed, written_out
from tiltlab.storage.parts import clear_parts

Json = dict[str, Any]

LONGEST = 120
"""Bytes of a name on disk: most file systems take 255, some 143, and names grow by what is put before and behind."""


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all. Raises UserError where it cannot be written."""
    write_text(path, json.dumps(data, indent=1, allow_nan=True) + "\n")


def read_json(path: Path) -> Json:
    """What a JSON file holds. Raises UserError for a file that cannot be read, or is not JSON."""
    data: Json = parsed(_text(path), str(path))
    return data


def _text(path: Path) -> str:
    try:
        return decoded(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {words(error)}") from error


def read_lines(path: Path) -> list[Json]:
    """All whole lines of a JSONL file; none where there is no file. A last line that was truncated is left out.

    Raises UserError, naming the line, for one that is not JSON.
    """
    return [parsed(line, f"{path} line {number}") for number, line in numbered(path)]


def numbered(path: Path) -> list[tuple[int, str]]:
    """Number, from 1, and text of every line of a file but blank ones; none where there is no file.

    A last line without a line break counts where it is a whole object: no part of one is. Raises UserError for a file
    that cannot be read, or is not UTF-8.
    """
    text = decoded(_bytes(path), path)
    lines = list(numbered_lines(text))
    ended = text.rstrip(" \t\r").endswith("\n")
    return lines if ended or not lines or whole_object(lines[-1][1]) else lines[:-1]


def whole_object(line: str | bytes) -> Json | None:
    """The JSON object that a line holds, None for anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def require_end(path: Path) -> None:
    """Check that a JSONL file is whole. Raises UserError where its last line was truncated."""
    *before, last = (path.read_bytes() if path.is_file() else b"").split(b"\n")
    if last.strip() and whole_object(last) is None:
        raise UserError(f"{path} line {len(before) + 1} is cut off")


def whole_lines(path: Path) -> list[Json]:
    """The lines of a JSONL file up to the first that is truncated or damaged; none where there is no file."""
    lines: list[Json] = []
    for line in _bytes(path).removesuffix(b"\n").split(b"\n"):
        if not (entry := whole_object(line)):
            break
        lines.append(entry)
    return lines


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {words(error)}") from error


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all; one that is like that already is left alone."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if _bytes(path) != text.encode():
        write_text(path, text)


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Add a line to a JSONL file, as `append_lines` does."""
    append_lines(path, [data])


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a JSONL file and wait until they are on the disk. Raises UserError where they cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def keep_first(path: Path, count: int) -> None:
    """Keep only the first `count` lines of a JSONL file, and none that is not whole."""
    write_lines(path, whole_lines(path)[:count])


def slug(label: str) -> str:
    """A label as a folder name: letters, digits, dots and dashes; a long one is cut, and told apart by a hash."""
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in label.lower()).strip(".") or "-"
    name = re.sub(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", r"\1-", name)  # devices to some systems
    return shortened(name, label)


def shortened(name: str, label: str | None = None) -> str:
    """A name as it is, or where it is too long for a folder its beginning and a hash.

    label: what the name stands for, of which the hash is made; the name itself where left out.
    """
    if len(os.fsencode(name)) <= LONGEST:
        return name
    whole = hashlib.sha256((label or name).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{os.fsencode(name)[: LONGEST - 17].decode('utf-8', 'ignore')}-{whole}"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Half a surrogate pair, which UTF-8 has no bytes for, is written out.

    Raises UserError where it cannot be written.
    """
    write_bytes(path, written_out(text).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises UserError where it cannot be written."""
    make_folder(path.parent)
    begins = path.name[:40]
    part = path.with_name(f"{begins}.{secrets.token_hex(4)}.{os.getpid()}.part")  # others may be writing the same file
    try:
        clear_parts(path.parent.glob(f"{escape(begins)}.*.*.part"))
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            part.unlink()
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it. Raises UserError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error
