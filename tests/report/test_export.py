"""Tables for other documents say what was put in, whatever characters it holds."""

import csv
import io
from pathlib import Path

import pytest

from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.report.export import Table, as_csv, latex, markdown
from tiltlab.stats.metrics import Interval

NASTY = 'a|b & 50%_"$x^2~{\\#}\n<b>'
TABLE = Table(
    ("arm", "accuracy", "length", "seeds"),
    [(NASTY, Interval(0.5, 0.25, 2 / 3), 12.345, 2), ("base", None, float("nan"), 1)],
    {"length": 1},
    "50 % of it & more",
)


def test_csv_holds_every_digit_and_every_character() -> None:
    header, first, second = csv.reader(io.StringIO(as_csv(TABLE)))
    assert header == ["arm", "accuracy", "accuracy low", "accuracy high", "length", "seeds"]
    assert first[0] == NASTY
    assert [float(cell) for cell in first[1:]] == [0.5, 0.25, 2 / 3, 12.345, 2]
    assert second == ["base", "", "", "", "", "1"]


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "＝", "－"])
def test_csv_holds_no_formula(begins: str) -> None:
    text = f"{begins}HYPERLINK(0)"
    table = Table((text, "n"), [(text, -1.5), ("-3", 2), ("+.5e-3", -2), ("a-b", 1)], {}, "")
    header, *rows = csv.reader(io.StringIO(as_csv(table)))
    shown = text.replace("\r", "␍")
    assert header == [f"'{shown}", "n"]
    assert rows == [[f"'{shown}", "-1.5"], ["-3", "2"], ["+.5e-3", "-2"], ["a-b", "1"]]


def test_markdown_has_as_many_cells_in_each_row() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    for line in lines[:4]:
        assert line.replace("\\|", "").count("|") == 5
    assert "0.500 [0.250, 0.667] | 12.3 | 2 |" in lines[2]
    assert lines[3] == "| base | – | – | 1 |"
    assert "\\<b\\>" in lines[2]


def test_latex_escapes_what_would_be_a_command() -> None:
    text = latex(TABLE)
    assert r"a|b \& 50\%\_" in text
    assert r"\$x\textasciicircum{}2\textasciitilde{}\{\textbackslash{}\#\} <b>" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert r"\caption{50 \% of it \& more}" in text
    assert text.count("\\\\\n") == 3


def test_a_report_leaves_its_table_in_three_forms(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run")
    write_report(run)
    rows = list(csv.DictReader((run / "tables" / "results.csv").open()))
    assert [(row["arm"], row["checkpoint"]) for row in rows] == [
        ("base", ""), ("task reward", "last"), ("task reward", "best"),
    ]  # fmt: skip
    assert float(rows[1]["accuracy"]) == pytest.approx(7 / 8)
    assert rows[1]["verdict"]
    assert not rows[2]["verdict"]
    assert (run / "tables" / "results.md").read_text().count("\n| ") == 4
    assert (run / "tables" / "results.tex").is_file()
