"""What is shown while work goes on: bars on the error stream, and a line for whatever is worth keeping."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tiltlab.system.streams import line, stderr
from tiltlab.system.visible import on_one_line

if TYPE_CHECKING:
    from tiltlab.study.run import Cell
    from tiltlab.study.study import OnProgress
    from tiltlab.study.tracking import Mirror

errors = Console(file=stderr, stderr=True, soft_wrap=True, highlight=False)


def bars() -> Progress:
    """Names may look like markup, and are none."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors, transient=True)


@contextmanager
def cells_progress(run: Path, mirror: "Mirror | None" = None) -> Iterator["OnProgress"]:
    """One bar for each cell that is running. `mirror`: told whenever one has news."""
    with bars() as shown:
        bar_of: dict[str, TaskID] = {}

        def on_progress(cell: "Cell", doing: str, done: int, total: int, news: str = "") -> None:
            if news:
                shown.console.print(line(f"{cell.key}: {news}", style="yellow"), soft_wrap=True)
            if mirror:
                mirror.look(cell.key, cell.folder(run), ended=total == 0)
            if total == 0 and cell.key in bar_of:
                shown.remove_task(bar_of.pop(cell.key))
                ended = "failed" if cell.folder(run).failed.exists() else "done"
                shown.console.print(line(f"{cell.key}: {ended}"))
                return
            if cell.key not in bar_of:
                bar_of[cell.key] = shown.add_task(on_one_line(cell.key))
            shown.update(
                bar_of[cell.key], description=on_one_line(f"{cell.key} · {doing}"), completed=done, total=total
            )

        yield on_progress
