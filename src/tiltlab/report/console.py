"""Tables on a console, which lose nothing where room is short."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tiltlab.system.streams import line

_WIDE = 10_000


def new_table(title: str, figures: Iterable[str], names: Iterable[str] = ()) -> Table:
    """Names are plain text, whatever they hold, and fold where room is short; figures never do."""
    table = Table(title=line(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header in names:
        table.add_column(header, overflow="fold", min_width=7)
    for header in figures:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def print_whole(table: Table, console: Console) -> None:
    """Print without an ellipsis: in a file as wide as need be, on a terminal with names folded to its width; where not
    even the figures have room, the terminal itself goes on in the next line."""
    need = Measurement.get(console, console.options.update(width=_WIDE), table)
    table.width = max(need.minimum, min(need.maximum, console.width)) if console.is_terminal else need.maximum
    console.print(table, crop=False)
