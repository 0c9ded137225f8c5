"""Rows of any file that a reader is for: JSONL, JSON, Parquet, and the zip that Inspect writes.

Nothing is ever unpickled or executed, and nothing is unpacked to a disk. What unpacks to far more than it takes is
refused before it is in memory.

Left out on purpose: which program wrote them (recognise.py).
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiltlab.datasets.files import Rows, object_of, read_objects, read_rows
from tiltlab.errors import UserError, words
from tiltlab.storage.incoming import decoded, parsed

ENDS = (".jsonl", ".json", ".parquet", ".eval")
"""Of the names of files that may hold responses."""

MOST_ROWS = 5_000_000

SLACK, GROWTH = 2**24, 200
"""What is packed may have so many bytes, and so many times those that it takes: logs are packed 50-fold at most."""

ZSTANDARD = 93
"""What a zip calls the compression that newer versions of Inspect write, and that Python reads from 3.14 on."""


def rows_of(path: Path) -> Rows:
    """The rows of a file, in order. Raises UserError, naming file and row, for what cannot be read."""
    with _opened(path) as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return _inspect_zip(path)
    if start == b"PAR1" or path.suffix == ".parquet":
        return _parquet(path)
    return _json(path) if path.suffix == ".json" else read_objects(str(path))


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {words(error)}") from error


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        about = pyarrow.parquet.read_metadata(path)
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({words(error)}); is it whole?") from error
    if about.num_rows > MOST_ROWS:
        raise UserError(f"{path} has {about.num_rows} rows, and {MOST_ROWS} are read at most; split it")
    if size > (most := SLACK + GROWTH * path.stat().st_size):
        raise UserError(f"{path} unpacks to {size} bytes, and more than {most} are not read out of so small a file")
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{path} is a Parquet file; call it {path.stem}.parquet")
    yield from read_rows(str(path))


def _json(path: Path) -> Rows:
    """A log of Inspect, a list of rows, or one row; many files that are named so hold one object a line instead."""
    with _opened(path) as file:
        text = decoded(file.read(), path)
    try:
        whole = parsed(text, str(path))
    except UserError:
        if not text.lstrip().startswith("{") or "\n" not in text.strip():
            raise
        yield from read_objects(str(path))
        return
    if isinstance(whole, dict) and "eval" in whole and isinstance(whole.get("samples"), list):
        for i, sample in enumerate(whole["samples"], start=1):
            yield f"{path} sample {i}", {"eval": whole["eval"], "sample": object_of(sample, f"{path} sample {i}")}
    elif isinstance(whole, dict):
        yield str(path), whole
    elif isinstance(whole, list):
        for i, row in enumerate(whole, start=1):
            yield f"{path} row {i}", object_of(row, f"{path} row {i}")
    else:
        raise UserError(f"{path} holds a {type(whole).__name__}, and no rows")


def _inspect_zip(path: Path) -> Rows:
    try:
        with zipfile.ZipFile(path) as log:
            names = [name for name in log.namelist() if name.startswith("samples/") and name.endswith(".json")]
            if not names:
                raise UserError(f"{path} is a zip without samples; a log of Inspect has samples/ID_epoch_N.json")
            header = next((name for name in ("header.json", "_journal/start.json") if name in log.namelist()), None)
            about = _entry(log, path, header) if header else {}
            for name in names:
                if name.count("/") > 1:
                    raise UserError(
                        f"{path}: {name} is a part of a sample; write the log anew with `inspect log convert`"
                    )
                yield f"{path} {name}", {"eval": about.get("eval", {}), "sample": _entry(log, path, name)}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as a log of Inspect ({words(error)}); is it whole?") from error


def _entry(log: zipfile.ZipFile, path: Path, name: str) -> dict[str, Any]:
    info, where = log.getinfo(name), f"{path} {name}"
    most = SLACK + GROWTH * min(info.compress_size, path.stat().st_size)
    data = _unpacked(log, path, info, most + 1)
    if len(data) > most:
        raise UserError(f"{where} unpacks to more than {most} bytes; that is no log")
    return object_of(parsed(decoded(data, where), where), where)


def _unpacked(log: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo, most: int) -> bytes:
    """The first so many bytes of an entry."""
    try:
        if info.compress_type != ZSTANDARD:
            with log.open(info) as entry:
                return entry.read(most)
        return _zstandard(path, info, most)
    except (zlib.error, zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} {info.filename} cannot be unpacked ({words(error)}); is the file whole?") from error


def _zstandard(path: Path, info: zipfile.ZipInfo, most: int) -> bytes:
    import pyarrow

    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise EOFError("its entry does not begin where the directory says")
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        packed = pyarrow.BufferReader(file.read(info.compress_size))
    data = bytearray()
    with pyarrow.CompressedInputStream(packed, "zstd") as stream:
        while len(data) < most and (more := stream.read(2**20)):
            data += more
    if len(data) < most and zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("its checksum is another")
    return bytes(data[:most])


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder, and of those in it, that may hold responses, in order of the numbers in their names."""
    found = [path for path in folder.rglob("*") if path.suffix in ENDS and path.is_file()]
    return iter(sorted(found, key=lambda path: [_number(part) for part in path.relative_to(folder).parts]))


def _number(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name if c.isdecimal())
    return int(digits[:18] or 0), name
