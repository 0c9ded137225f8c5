"""The page of a forecast and its words: three lines, first steps, and what becomes of a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.forecast.test_lines import answering, short_are_likely, world
from tiltlab.forecast.forecast import Forecast, base_forecast
from tiltlab.report.forecast import fate, in_words, length_in_words, reason_of, write_forecast_page
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.terminal import print_forecast
from tiltlab.stats.metrics import Interval
from tiltlab.types import Record

MADE: dict[str, Any] = {"command": ["tiltlab"], "versions": {}, "python": "3", "machine": "m", "commit": None}
SPREAD = base_forecast(world("spread"))


def turning() -> list[Record]:
    """Right responses are the likelier ones, but one wrong response is the likeliest, and rare."""
    rng = np.random.default_rng(0)
    records = []
    for p in range(60):
        for _ in range(64):
            kind = rng.choice(3, p=[0.06, 0.44, 0.5])
            logp = [-1.0, -8.0, -12.0][kind] + 0.3 * rng.normal()
            records.append(answering(str(p), "1" if kind == 1 else "2", logp))
    return records


def page_of(forecast: Forecast, folder: Path) -> str:
    write_forecast_page(forecast, MADE, folder / "page.html")
    text = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"<script[ >].*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)


def test_the_lines_differ_by_colour_dash_and_marker_and_have_their_names() -> None:
    figure = frontier(SPREAD, [])
    thick = [trace for trace in figure.data if trace.line.width > 1]
    assert [trace.name for trace in thick] == ["forecast, sharpening", "forecast, voting", "forecast, reward"]
    looks = [(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in thick]
    assert [len(set(of_lines)) for of_lines in zip(*looks, strict=True)] == [3, 3, 3]
    assert {note.text for note in figure.layout.annotations} >= {"sharpening", "voting", "reward"}
    (power,) = [trace for trace in figure.data if trace.name == "forecast, p^α"]
    assert (power.line.color, power.line.width) == (thick[0].line.color, 1)


def test_lines_beside_arms_are_called_forecasts() -> None:
    """A study has arms called like the lines."""
    at = Interval(0.5, 0.4, 0.6)
    figure = frontier(SPREAD, [Reached("base", at, at, "#000000"), Reached("sharpening", at, at, "#000000")])
    names = [note.text for note in figure.layout.annotations]
    assert names.count("sharpening") == 1
    assert "forecast: sharpening" in names


def test_the_words_tell_each_line_and_whether_it_helps() -> None:
    said = in_words(SPREAD)
    assert re.search(r"the base has 0\.6\d+ \[", said)
    assert re.search(r"sharpening by likelihood hurts \(the likeliest of 32: 0\.0\d\d", said)
    assert re.search(r"voting reaches (?:0\.9|1\.0)\d+ \[.*?\] \(the vote of \d+\)", said)
    assert "A reward reaches" in said


def test_where_there_is_nothing_to_vote_on_that_is_said(tmp_path: Path) -> None:
    essays = [replace(r, answer=f"they all went home at last {r.text} and so on for ever") for r in world("noisy")]
    forecast = base_forecast(essays)
    assert "nothing to vote on: " in in_words(forecast)
    page = page_of(forecast, tmp_path)
    assert "free text" in page
    assert "common answers" not in page
    assert "<td>votes</td>" not in page


def test_a_path_with_its_top_inside_is_said_to_rise_and_fall() -> None:
    lines = base_forecast(turning()).lines
    assert lines is not None
    told = {rise.method: (fate(rise), reason_of(rise)) for rise in lines.rises}
    assert told["sharpening"][0] == "rises, then collapses"
    assert re.search(r"; highest at the likeliest of [248]$", told["sharpening"][1])
    assert told["tempered"][0] == "cannot tell"


def test_how_much_of_the_path_is_length_is_said() -> None:
    short, alike = base_forecast(short_are_likely()).lines, base_forecast(world("noisy")).lines
    assert short is not None
    assert alike is not None
    share = re.search(r"So (\d+)% of the change is a liking for short responses", length_in_words(short) or "")
    assert share
    assert int(share[1]) > 60
    assert (length_in_words(alike) or "").endswith("None of the change is length.")
    assert length_in_words(replace(short, like_length=())) is None


def test_the_page_has_first_steps_fates_and_folded_tables(tmp_path: Path) -> None:
    page = page_of(SPREAD, tmp_path)
    assert re.search(r"<td>what is likelier</td><td>-0\.\d+", page)
    assert re.search(r"<td>common answers</td><td>\+0\.\d+", page)
    assert re.search(r"<td>votes</td><td><strong>rises</strong></td><td class=\"why\">the vote of 32 is right", page)
    assert "<strong>collapses</strong>" in page
    folded = page[page.index("The lines in figures") : page.index("</details>")]
    for part in (
        "the likeliest of k",
        "the vote of k",
        "Answer power g",
        "Ablation: the likeliest of k by log p a token",
    ):
        assert part in folded
    assert "<details open" not in page
    assert page.count("<details") == page.count("</details>")


@pytest.mark.parametrize("kind", ["few", "old"])
def test_a_forecast_of_little_is_a_page_too(kind: str, tmp_path: Path) -> None:
    """With few problems nothing has an interval; older forecasts know p^alpha and the reward alone."""
    forecast = base_forecast(world("noisy", 6)) if kind == "few" else replace(SPREAD, lines=None)
    page = page_of(forecast, tmp_path)
    assert ("What a first step" in page) == (kind == "few")
    assert "p^alpha and the reward in figures" in page
    assert in_words(forecast)


def test_on_a_terminal_it_is_words_a_table_and_a_line_for_each_run() -> None:
    console = Console(width=100, record=True, file=None)
    with console.capture() as caught:
        print_forecast(SPREAD, console)
    said = caught.get()
    assert said.startswith("forecast: the base has")
    assert re.search(r"votes +\+0\.", said)
    assert re.search(r"^sharpening: collapses \(the likeliest of 32", said, re.MULTILINE)
