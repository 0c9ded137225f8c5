"""The result tables on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tiltlab.report.load import load_study
from tiltlab.report.tables import Row, result_rows


def print_tables(run: Path, console: Console) -> None:
    """One table a task; rows as on the page."""
    study = load_study(run)
    rows = result_rows(study)
    for task in study.tasks:
        of_task = [row for row in rows if row.task == task]
        table = Table(
            title=f"{study.name}: {task}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        for header in ("arm", "step"):
            table.add_column(header, no_wrap=True)
        for header in ("accuracy", f"pass@{of_task[0].k}", f"maj@{of_task[0].k}", "length", "KL"):
            table.add_column(header, justify="right", no_wrap=True)
        for row in of_task:
            table.add_row(*_cells(row))
        console.print(table)


def _cells(row: Row) -> list[str]:
    accuracy = row.accuracy
    return [
        row.arm,
        " ".join([row.which, ",".join(map(str, sorted(set(row.steps))))]),
        f"{accuracy.value:.3f} [{accuracy.low:.3f} {accuracy.high:.3f}]",
        f"{row.pass_k.value:.3f}",
        f"{row.maj_k.value:.3f}",
        f"{row.length.value:.1f}",
        f"{row.kl.value:.2f}",
    ]


def print_lab(results: Mapping[str, Any], console: Console) -> None:
    """The lab's figures in short."""
    lengths, path, runs = results["two_lengths"], results["reward_path"], results["commitment"]
    mean = Table(title="mean length: p^alpha beside temperature 1/alpha a token", title_justify="left", box=SIMPLE_HEAD)
    for header in ("alpha", "p^alpha", "temperature"):
        mean.add_column(header, justify="right")
    for alpha, power, colder in zip(lengths["alphas"], lengths["power"], lengths["temperature"], strict=True):
        mean.add_row(f"{alpha:g}", f"{power:.2f}", f"{colder:.2f}")
    reward = Table(title="accuracy of the tilted optimum, binary reward", title_justify="left", box=SIMPLE_HEAD)
    for header in ("beta", "closed form", "summed", "trained"):
        reward.add_column(header, justify="right")
    columns = (path["betas"], path["formula"], path["enumerated"], path["trained"])
    for beta, formula, exact, trained in zip(*columns, strict=True):
        reward.add_row(f"{beta:g}", f"{formula:.4f}", f"{exact:.4f}", f"{trained:.4f}")
    seeds = len(runs["on_mode"][0])
    commitment = Table(title="pure sharpening: where it ends", title_justify="left", box=SIMPLE_HEAD)
    for header in ("batch", f"on a wrong response, of {seeds}", "tempered 4: distance to its optimum"):
        commitment.add_column(header, justify="right")
    for batch, wrong, distances in zip(runs["batches"], results["wrong"], runs["tempered_distance"], strict=True):
        commitment.add_row(str(batch), str(wrong), f"{sum(distances) / seeds:.3f}")
    for table in (mean, reward, commitment):
        console.print(table)
