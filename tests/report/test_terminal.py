"""What is printed is all there, whatever it is printed to and whatever the arms are called."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.report.test_report import fail, made_study
from tiltlab.report.load import load_study
from tiltlab.report.page import analysed
from tiltlab.report.tables import result_rows
from tiltlab.report.terminal import print_lab, print_tables

LONG = "a label that goes on and on, [bold]beyond[/] what eighty columns can hold"
ARMS = [{"arm": "base", "label": "[/] :x:"}, {"arm": "task_reward", "label": LONG}, {"arm": "sharpening"}]


def printed(run: Path, **options: Any) -> str:
    file = StringIO()
    study = load_study(run)
    print_tables(study, *analysed(study), Console(file=file, color_system=None, **options))
    return file.getvalue()


def line_of(text: str, *pieces: str) -> str:
    (line,) = (line for line in text.splitlines() if all(piece in line for piece in pieces))
    return line


def accuracies(run: Path) -> tuple[str, str]:
    """Of the base and of the best checkpoint, as they are to be printed."""
    shown = [row.accuracy for row in result_rows(load_study(run)) if row.which != "last"]
    base, best = (f"{found.value:.3f} [{found.low:.3f} {found.high:.3f}]" for found in shown)
    return base, best


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 20])
def test_in_a_file_every_row_is_one_line(tmp_path: Path, width: int) -> None:
    fail(made_study(tmp_path, arms=ARMS), "sharpening", 0, "[/] " + "so long " * 20)
    text = printed(tmp_path, width=width)
    assert "…" not in text
    base, best = accuracies(tmp_path)
    assert squeezed(line_of(text, "[/] :x:")) == f"[/] :x: {base} 1.000 0.250 7.8 5.0 2.00"
    assert squeezed(line_of(text, LONG, "best")) == f"{LONG} best 2 {best} 1.000 1.000 4.0 5.0 2.00"
    assert line_of(text, "Failed: lazy-sum / sharpening / seed 0: [/] so long").count("so long") == 20


@pytest.mark.parametrize("width", [80, 40])
def test_on_a_terminal_names_fold_and_figures_stay_whole(tmp_path: Path, width: int) -> None:
    text = printed(made_study(tmp_path, arms=ARMS), width=width, force_terminal=True)
    assert "…" not in text
    base, best = accuracies(tmp_path)
    assert squeezed(line_of(text, base)) == f"[/] :x: {base} 1.000 0.250 7.8 5.0 2.00"
    assert squeezed(line_of(text, best)).endswith(f" best 2 {best} 1.000 1.000 4.0 5.0 2.00")
    assert squeezed(line_of(text, "accuracy")) == "arm step accuracy pass@4 maj@4 length tokens used KL"
    table = text[: text.index("verdicts:")]
    names = "".join(line.split("  ")[0].replace(" ", "") for line in table.splitlines())
    assert names.count(LONG.replace(" ", "")) == 2
    assert f"verdicts: lazy-sum: {LONG}: cannot tell." in text


def test_a_colder_arm_has_no_kl(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, {"arm": "temperature", "temperature": 0.25}]
    text = printed(made_study(tmp_path, arms=arms), width=80)
    assert line_of(text, "temperature 0.25").split()[-1] == "–"
    assert "KL –: log-probabilities are known at temperature 1 only" in text
    assert "–:" not in printed(made_study(tmp_path / "without"), width=80)


def test_the_lab_is_printed_whole() -> None:
    results = {
        "two_lengths": {"alphas": [2.0], "power": [1.5], "temperature": [2.5]},
        "reward_path": {"betas": [0.5], "formula": [0.25], "enumerated": [0.25], "trained": [0.2501]},
        "commitment": {"on_mode": [[1.0, 0.0]], "batches": [8], "tempered_distance": [[0.1, 0.3]]},
        "wrong": [1],
    }
    file = StringIO()
    print_lab(results, Console(width=30, file=file))
    text = file.getvalue()
    assert "…" not in text
    assert squeezed(line_of(text, "0.2501")) == "0.5 0.2500 0.2500 0.2501"
    line_of(text, "on a wrong response, of 2", "tempered 4: distance to its optimum")
