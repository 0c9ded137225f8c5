"""Whatever becomes of the output, the command says it plainly; whatever the text holds, nothing of it works unseen."""

import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.evaluation.test_run import lines
from tests.report.test_report import made_study
from tiltlab.report.export import as_csv, latex, markdown
from tiltlab.report.load import load_study
from tiltlab.report.page import analysed, render, table_of
from tiltlab.report.terminal import print_tables
from tiltlab.storage.files import write_text
from tiltlab.system.streams import line
from tiltlab.system.visible import on_one_line, visible
from tiltlab.tasks.sums import Sums

PROGRAM = [sys.executable, "-c", "from tiltlab.cli.main import main; main()"]
ESC, OVERRIDE, HALF = "\x1b[2J", "\u202e", "\ud800"
LABEL = "α → β – 漢"
LABELLED = [{"arm": "base", "label": LABEL}, {"arm": "task_reward"}]


def program(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, check=False, **options)


@pytest.mark.parametrize("arguments", [["report"], ["--help"], ["evaluate", "--help"], ["nonsense → –"]])
def test_what_ascii_lacks_is_written_out(arguments: list[str], tmp_path: Path) -> None:
    run = made_study(tmp_path / "run", arms=LABELLED)
    narrow = os.environ | {"PYTHONIOENCODING": "ascii"}
    given = [*arguments, str(run)] if arguments == ["report"] else arguments
    done = program(*given, stdout=subprocess.PIPE, env=narrow)
    assert done.returncode == (2 if arguments[0].startswith("nonsense") else 0)
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()
    if arguments == ["report"]:
        assert on_ascii(LABEL) in done.stdout


def on_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def test_the_console_alone_holds_out_too() -> None:
    code = (
        "from rich.text import Text; from tiltlab.cli.output import Output; "
        "Output().console.print(Text('0.3 \\u2192 0.4, \\udcff'))"
    )
    for encoding, said in (("ascii", b"0.3 \\u2192 0.4, \\udcff\n"), ("utf-8", "0.3 → 0.4, \\udcff\n".encode())):
        narrow = os.environ | {"PYTHONIOENCODING": encoding}
        assert subprocess.run([sys.executable, "-c", code], env=narrow, capture_output=True, check=True).stdout == said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["report"], ["--help"]])
def test_output_that_finds_no_room_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    run = made_study(tmp_path / "run")
    with Path("/dev/full").open("w") as full:
        done = program(*arguments, *([str(run)] if arguments == ["report"] else []), stdout=full)
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
    assert done.returncode == 2
    assert (run / "report.html").exists() == (arguments == ["report"])  # files first


def test_a_reader_that_has_gone_misses_the_rest(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = program("report", str(run), stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "report.html").exists()


def test_output_that_is_closed_is_no_matter(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run")
    closed = ["sh", "-c", '"$@" >&- 2>&-', "sh", *PROGRAM, "report", str(run)]
    assert subprocess.run(closed, check=False).returncode == 0
    assert (run / "report.html").exists()


def test_an_evaluation_is_written_before_it_is_told(tmp_path: Path) -> None:
    file = lines(tmp_path / "r.jsonl", {"problem": Sums("noisy-sum").problems("test")[0].id, "text": "7"})
    reading, writing = os.pipe()
    os.close(reading)
    try:
        out = ["--out", str(tmp_path / "out")]
        program("evaluate", "--task", "noisy-sum", "--responses", str(file), *out, stdout=writing)
    finally:
        os.close(writing)
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain – 漢字 👩‍🚀, é\n\tand more", None),
        ("\x1b[31mred\x00\x07\r\x7f", "␛[31mred␀␇␍␡"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("\ud800 \udcff", "\\ud800 \\udcff"),
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
    ],
)
def test_what_works_unseen_is_written_out(text: str, seen: str | None) -> None:
    assert visible(text) == (text if seen is None else seen)
    assert on_one_line("a\nb\tc") == "a␊b␉c"
    assert line(text, ("x", "bold")).plain == on_one_line(text) + "x"


def test_pages_and_tables_show_it(tmp_path: Path) -> None:
    hostile = f"{ESC}now {OVERRIDE}txt {HALF}\x00"
    run = made_study(tmp_path, text=hostile)
    study = load_study(run)
    page = render(study, *analysed(study))
    write_text(run / "page.html", page)
    for text in (page, *(path.read_text(encoding="utf-8") for path in [run / "page.html"])):
        assert "␛[2Jnow \\u202etxt \\ud800␀" in text
        assert not set(text) & {"\x1b", OVERRIDE, HALF, "\x00"}


def test_names_of_every_kind_reach_page_terminal_and_documents(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path))
    named = replace(study, arms=[replace(arm, name=f"{arm.name} {ESC}{OVERRIDE}{HALF}") for arm in study.arms])
    rows, found = analysed(named)
    file = StringIO()
    print_tables(named, rows, found, Console(file=file, color_system=None, width=200))
    table = table_of(named, rows, found)
    for text in (render(named, rows, found), file.getvalue(), markdown(table), latex(table), as_csv(table)):
        assert not set(text) & {"\x1b", OVERRIDE, HALF}
        assert "202e" in text
