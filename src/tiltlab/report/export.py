"""Tables for other documents: Markdown, LaTeX (booktabs) and CSV.

Left out on purpose: styles. Who wants bold maxima or fewer columns edits text.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltlab.report.text import UNKNOWN, number
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import write_text
from tiltlab.system.visible import visible

_FORMULA = "=+-@\t\r\n"

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """A table, in no format yet.

    columns: names.
    rows: a cell for each column; None where there is nothing.
    digits: after the point, by column; 3 where left out.
    caption: one or two sentences.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: Mapping[str, int]
    caption: str


def write_tables(table: Table, folder: Path, name: str) -> None:
    """Write NAME.md, NAME.tex and NAME.csv to a folder."""
    for suffix, form in (("md", markdown), ("tex", latex), ("csv", as_csv)):
        write_text(folder / f"{name}.{suffix}", form(table))


def markdown(table: Table) -> str:
    """A table in Markdown, with its caption below."""
    lines = [table.columns, ["---" if c in _names(table) else "---:" for c in table.columns], *_texts(table)]
    rows = [lines[0], *lines[1:2], *lines[2:]]
    body = "\n".join(f"| {' | '.join(map(in_markdown, row))} |" for row in rows)
    return f"{body}\n\n{in_markdown(table.caption)}\n"


def latex(table: Table) -> str:
    """A table environment; it takes the package booktabs."""
    shape = "".join("l" if column in _names(table) else "r" for column in table.columns)
    lines = [f"    {' & '.join(map(_in_latex, row))} \\\\" for row in (table.columns, *_texts(table))]
    return "\n".join(
        [
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{_in_latex(table.caption)}}}",
            f"  \\begin{{tabular}}{{{shape}}}",
            "    \\toprule",
            lines[0],
            "    \\midrule",
            *lines[1:],
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def as_csv(table: Table) -> str:
    """A table as CSV, in full precision and without its caption.

    An interval fills three columns, its ends called `low` and `high`. Text that a spreadsheet would take for a formula
    begins with an apostrophe, its mark of text, and none of it works unseen.
    """
    split = [column for i, column in enumerate(table.columns) if any(isinstance(r[i], Interval) for r in table.rows)]
    header = [name for c in table.columns for name in ((c, f"{c} low", f"{c} high") if c in split else (c,))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_as_text, header))
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        writer.writerow([value for column, cell in cells for value in _spread(cell, column in split)])
    return out.getvalue()


def _spread(cell: Cell, split: bool) -> list[str]:
    if isinstance(cell, Interval):
        return [_exact(value) for value in (cell.value, cell.low, cell.high)]
    return [_exact(cell), "", ""] if split else [_exact(cell)]


def _exact(cell: Cell) -> str:
    """A float to its last digit; nothing for None and NaN."""
    if isinstance(cell, str):
        return _as_text(cell)
    return "" if cell is None or cell != cell else str(cell)


def _as_text(text: str) -> str:
    """Spreadsheets compute a cell that begins so, after blanks too and in the full-width forms of East Asia."""
    begins = unicodedata.normalize("NFKC", text.lstrip(" ")[:1])
    marked = begins and begins in _FORMULA and not _is_number(text)
    return visible(f"'{text}" if marked else text)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None


def _texts(table: Table) -> list[list[str]]:
    return [[_text(c, table.digits.get(n, 3)) for n, c in zip(table.columns, row, strict=True)] for row in table.rows]


def _text(cell: Cell, digits: int) -> str:
    if isinstance(cell, Interval):
        ends = "" if cell.low != cell.low else f" [{number(cell.low, digits)}, {number(cell.high, digits)}]"
        return number(cell.value, digits) + ends
    if cell is None:
        return UNKNOWN
    return number(cell, digits) if isinstance(cell, float) else str(cell)


def _names(table: Table) -> set[str]:
    """The columns that hold text."""
    return {name for i, name in enumerate(table.columns) if any(isinstance(row[i], str) for row in table.rows)}


def in_markdown(text: str) -> str:
    """Text that is nothing but text in Markdown, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\|`*_<>[]" and not _is_interval(text) else c for c in visible(text))
    return " ".join(escaped.split())


def _is_interval(text: str) -> bool:
    return set(text) <= set("0123456789.-+[], –")


def _in_latex(text: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", UNKNOWN: "--"}
    escaped = "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in visible(text))
    return " ".join(escaped.split())
