"""The first screen of a study: what it says, in words and in its two figures."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.report.test_report import made_study, samples
from tests.report.written import write_report
from tiltlab.forecast.forecast import Forecast, Point
from tiltlab.report.figures import cost, log_ticks
from tiltlab.report.findings import Findings
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.headline import best_sampler, headline
from tiltlab.report.lead import caveats, cost_in_words, lead
from tiltlab.report.load import Study, load_study
from tiltlab.report.names import spread
from tiltlab.report.page import analysed
from tiltlab.report.styles import _SHADES, arm_colours, arm_dashes, arm_symbols
from tiltlab.report.tables import Row, result_rows
from tiltlab.report.terminal import print_tables
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import read_json, read_lines, write_json, write_lines
from tiltlab.storage.records import write_records
from tiltlab.storage.run_folder import JobDir
from tiltlab.verdict.sharpened import By, OfFamily, Sharpened
from tiltlab.verdict.verdict import Outcome

ARMS: list[dict[str, Any]] = [
    {"arm": "base"},
    {"arm": "temperature", "temperature": 0.25},
    {"arm": "best_of_n", "of": 4, "by": "reward"},
    {"arm": "tempered", "alpha": 1},
    {"arm": "tempered", "alpha": 4},
    {"arm": "task_reward"},
]
RIGHT = {"null-control": (1, 2), "temperature-0.25": (2, 2), "tempered-4": (0, 1), "best-of-4-by-reward": (4, 4)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six arms of unlike accuracy; the reward sampler is the best of all."""
    made_study(tmp_path, arms=ARMS)
    for arm, right in RIGHT.items():
        folder = JobDir(tmp_path / "cells" / "lazy-sum" / arm / "seed-0")
        assert folder.path.is_dir()
        write_records(folder.records("last"), samples(right, "so 12"))
    return tmp_path


def told(study: Study, outcomes: dict[str, Outcome], by: By | None = None) -> str:
    """The lead of the task, of these outcomes: chip and words. by: which sharpening explains a gain."""
    rows, found = analysed(study)
    verdicts = found["lazy-sum"].verdicts
    assert verdicts.keys() == outcomes.keys()
    turned = {arm: replace(verdict, outcome=outcomes[arm], by=by) for arm, verdict in verdicts.items()}
    said = lead(study, rows, "lazy-sum", Findings(None, turned))
    assert said is not None
    return f"{said.chip}: {said.words}"


def test_a_task_is_told_in_one_sentence_by_the_best_outcome_of_its_arms(run: Path) -> None:
    study = load_study(run)
    arms: dict[str, Outcome] = {"null control": "no gain", "tempered 4": "collapse", "task reward": "beyond sharpening"}
    best = "taught: Task reward lifts 0.38 to 0.88; the best sharpening, temperature 0.25, reaches 0.50."
    assert told(study, arms) == best
    assert told(study, arms | {"task reward": "sharpening explains it"}) == (
        "only sharpened: Untrained, temperature 0.25: 0.50; best trained arm, task reward: 0.88; the base: 0.38."
    )
    assert told(study, arms | {"task reward": "cannot tell"}).startswith("cannot tell: Task reward: 0.38 to 0.88")
    assert told(study, arms | {"task reward": "collapse"}).startswith(
        "no gain: No trained arm is above the base (0.38)"
    )


def test_what_only_votes_explain_is_said_to_be_votes_and_that_likelihood_ruins_it(tmp_path: Path) -> None:
    arms: list[dict[str, Any]] = [{"arm": "base"}, {"arm": "majority", "of": 16}]
    arms += [{"arm": "tempered", "alpha": 4}, {"arm": "task_reward"}]
    run = made_study(tmp_path, arms=arms)
    for arm, right in {"majority-of-16": (4, 4), "tempered-4": (0, 1)}.items():
        write_records(JobDir(run / "cells" / "lazy-sum" / arm / "seed-0").records("last"), samples(right, "so 12"))
    outcomes: dict[str, Outcome] = {"tempered 4": "collapse", "task reward": "sharpening explains it"}
    assert told(load_study(run), outcomes, by="answers") == (
        "only sharpened (votes): Untrained, majority of 16: 1.00; likelihood sharpening ruins it (0.12); best trained "
        "arm, task reward: 0.88; the base: 0.38."
    )
    assert told(load_study(run), outcomes, by="likelihood").startswith(
        "only sharpened (likelihood): Untrained, majority"
    )


def test_where_no_arm_samples_the_base_so_the_verdict_says_what_would_have_been(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path, arms=[{"arm": "base"}, {"arm": "task_reward"}]))
    rows, found = analysed(study)
    verdict = found["lazy-sum"].verdicts["task reward"]
    told = (Interval(0.98, 0.97, 0.99),) * 3
    votes = OfFamily(*told, ("the vote of 16",), alike=None, followed=None, limit=None, out_of_reach=False)
    both = Sharpened(*told, ("the vote of 16",), 1.0, covers=True, likelihood=None, answers=votes)
    explained = replace(verdict, outcome="sharpening explains it", by="answers", sharpened=both)
    said = lead(study, rows, "lazy-sum", Findings(None, {"task reward": explained}))
    assert said is not None
    assert said.words == "Task reward lifts 0.38 to 0.88; without training, the vote of 16: 0.98."


def test_a_gain_of_form_is_called_so(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path, arms=[{"arm": "base"}, {"arm": "task_reward"}]))
    rows, found = analysed(study)
    verdict = found["lazy-sum"].verdicts["task reward"]
    said = lead(study, rows, "lazy-sum", Findings(None, {"task reward": replace(verdict, outcome="form explains it")}))
    assert said is not None
    assert (said.chip, said.words) == (
        "only form",
        "Task reward lifts 0.38 to 0.88 by ending and answering where it is read.",
    )


def test_where_sharpening_only_harms_the_lead_says_so(tmp_path: Path) -> None:
    run = made_study(tmp_path, arms=[{"arm": "base"}, {"arm": "tempered", "alpha": 4}, {"arm": "task_reward"}])
    folder = JobDir(run / "cells" / "lazy-sum" / "tempered-4" / "seed-0")
    write_records(folder.records("last"), samples((0, 1), "so 12"))
    study = load_study(run)
    arms: dict[str, Outcome] = {"tempered 4": "collapse", "task reward": "beyond sharpening"}
    assert told(study, arms).endswith("; sharpening ruins it (0.12).")
    assert told(study, arms | {"tempered 4": "cannot tell"}).endswith("; no sharpening tried beats the base.")


def test_a_power_below_one_flattens_and_is_not_called_sharpening(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, {"arm": "tempered", "alpha": 0.5}, {"arm": "temperature", "temperature": 2}]
    study = load_study(made_study(tmp_path, arms=[*arms, {"arm": "task_reward"}]))
    outcomes: dict[str, Outcome] = {"tempered 0.5": "no gain", "task reward": "beyond sharpening"}
    assert told(study, outcomes).endswith("; nothing in this study sharpens the base.")


def test_without_a_base_or_a_trained_arm_there_is_no_lead(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path, arms=[{"arm": "task_reward"}]))
    rows, found = analysed(study)
    assert lead(study, rows, "lazy-sum", found["lazy-sum"]) is None
    assert "headline-0" in write_report(tmp_path).read_text()


def test_caveats_and_cost_are_of_what_was_run(run: Path) -> None:
    study = load_study(run)
    _, found = analysed(study)
    said = caveats(study, found)
    assert said[0].startswith("one seed")
    assert said[1] == "2 test problems a task"
    assert cost_in_words(study) == "6 s of computing and 240 tokens in all"


def test_where_several_ranks_made_figures_the_page_and_the_table_say_how_many(run: Path) -> None:
    assert "ranks a job" not in write_report(run).read_text()
    job = JobDir.of(run, "lazy-sum", "task reward", 0)
    write_lines(job.metrics, [line | {"ranks": 4} for line in read_lines(job.metrics)])
    assert read_lines(job.metrics)
    write_json(job.sampling("last"), read_json(job.sampling("last")) | {"ranks": 2})
    about = read_json(run / "study.json")
    write_json(run / "study.json", about | {"made": [about["made"][0] | {"ranks": 4}]})
    page = write_report(run).read_text()
    assert "made on 1 to 4 ranks a job" in page
    assert ", 4 ranks a job" in page
    printed = Console(record=True, file=io.StringIO())
    print_tables(load_study(run), *analysed(load_study(run)), printed)
    assert "made on 1 to 4 ranks a job" in printed.export_text()


def test_the_headline_names_its_points_and_sorts_them(run: Path) -> None:
    study = load_study(run)
    rows = result_rows(study)
    figure = headline(study, rows)
    names = [note.text.split(" <b>")[0] for note in figure.layout.annotations]
    assert sorted(names) == sorted(study.configs)
    order = figure.layout.yaxis.categoryarray
    accuracy = {row.arm: row.accuracy.value for row in rows if row.which != "best"}
    assert [accuracy[name] for name in order] == sorted(accuracy.values())
    symbols = {trace.name: trace.marker.symbol for trace in figure.data}
    assert symbols["task reward"] == symbols["tempered 4"] == "circle"
    assert symbols["base"] == symbols["temperature 0.25"] == "diamond"


def test_the_band_is_the_best_untrained_sampler_that_sees_no_reward(run: Path) -> None:
    study = load_study(run)
    rows = result_rows(study)
    best = best_sampler(study, rows, "lazy-sum")
    assert best is not None
    assert best.arm == "temperature 0.25"
    band, dotted = headline(study, rows).layout.shapes
    assert (band.x0, band.x1) == pytest.approx((best.accuracy.low, best.accuracy.high))
    assert (dotted.x0, dotted.line.dash) == (pytest.approx(3 / 8), "dot")


def reached(*places: tuple[float, float]) -> list[Reached]:
    points = [Interval(kl, 0.9 * kl, 1.1 * kl) for kl, _ in places]
    return [
        Reached(f"arm {i}", Interval(y, y, y), kl, "#0d9488")
        for i, ((_, y), kl) in enumerate(zip(places, points, strict=True))
    ]


@pytest.mark.parametrize("far", [60.0, 6000.0])
def test_an_outlier_does_not_stretch_the_frontier_and_is_told(far: float) -> None:
    figure = frontier(None, reached((0.0, 0.4), (1.0, 0.5), (2.0, 0.9), (1.5, 0.8), (far, 0.1)))
    assert 2 < figure.layout.xaxis.range[1] < 4
    outlier = figure.data[-1]
    assert outlier.marker.symbol == "triangle-right"
    assert outlier.x[0] == figure.layout.xaxis.range[1]
    assert f"arm 4, KL {far:.0f}" in [note.text for note in figure.layout.annotations]


def test_a_long_name_loses_its_middle_and_keeps_how_far_out_it_is() -> None:
    policies = reached((0.0, 0.4), (1.0, 0.5), (2.0, 0.9), (1.5, 0.8), (300.0, 0.1))
    named = [replace(one, name=f"w=1 s=0.25 beta=0.01 length=mean · run {i}") for i, one in enumerate(policies)]
    texts = [note.text for note in frontier(None, named).layout.annotations]
    assert len(set(texts)) == len(texts)
    assert texts[4].startswith("w=1 s=0.")
    assert texts[4].endswith("run 4, KL 300")
    assert max(map(len, texts)) == 26


def test_a_long_forecast_does_not_squeeze_the_policies() -> None:
    """Of a path that goes on far beyond them the part near them is shown, and its name is where that ends."""
    none = Interval(0.5, 0.4, 0.6)
    kls = {1.0: 0.0, 2.0: 0.6, 4.0: 9.0}
    points = tuple(
        Point(alpha, None, none, none, Interval(kl, kl, kl), {}, 8.0, 8.0, True, None, None)
        for alpha, kl in kls.items()
    )
    figure = frontier(Forecast(points, none, 20, 0, 8.0, 0, 0), reached((0.0, 0.4), (0.5, 0.6)))
    assert figure.layout.xaxis.range[1] == pytest.approx(1.06 * 1.5)
    (named,) = [note for note in figure.layout.annotations if note.text == "forecast: sharpening"]
    assert named.x == 0.6


def test_names_of_points_on_top_of_each_other_keep_apart() -> None:
    figure = frontier(None, reached(*((1.0, 0.5) for _ in range(8)), (0.5, 0.49)))
    heights = sorted(note.ay for note in figure.layout.annotations)
    pixels = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) / 1.06
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) * pixels > 14


def test_names_are_spread_in_order_and_within_bounds() -> None:
    assert spread([0.5, 0.2], 0.1, 0, 1) == [0.5, 0.2]
    assert spread([1.0, 1.0, 0.98], 0.1, 0, 1) == pytest.approx([0.9, 1.0, 0.8])
    crowded = spread([0.3] * 40, 0.1, 0, 1)
    assert sorted(crowded) == pytest.approx([i / 39 for i in range(40)])
    assert spread([], 0.1, 0, 1) == []


def test_a_logarithmic_axis_writes_its_ticks_out() -> None:
    assert log_ticks(3, 250) == [5, 10, 20, 50, 100, 200]
    assert log_ticks(0.15, 1.2) == pytest.approx([0.2, 0.5, 1])


def test_what_costs_nothing_known_has_no_place_on_a_logarithmic_axis(run: Path) -> None:
    study = load_study(run)
    rows: list[Row] = [
        replace(row, tokens_used=math.nan if row.arm == "base" else row.tokens_used) for row in result_rows(study)
    ]
    names = [note.text for note in cost(study, rows, "lazy-sum").layout.annotations]
    assert "task reward" in names
    assert "base" not in names


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_colour_stands_out_on_light_and_on_dark_pages(run: Path) -> None:
    papers = re.findall(r"--paper: (#[0-9a-f]{6})", write_report(run).read_text())
    assert len(papers) == 2
    for colour in (colour for shades in _SHADES.values() for colour in shades):
        assert min(contrast(colour, paper) for paper in papers) >= 3, colour


def test_arms_differ_by_more_than_colour(run: Path) -> None:
    study = load_study(run)
    colours, dashes, symbols = arm_colours(study), arm_dashes(study), arm_symbols(study)
    assert len(set(colours.values())) == len(colours)
    assert dashes["null control"] != dashes["tempered 4"]
    assert "dash" not in dashes.values()  # plain dashes are a failed job's
    assert all("diamond" in symbols[name] for name in ("base", "temperature 0.25", "best of 4 by reward"))
    assert "diamond" not in symbols["task reward"]


def test_a_gain_has_the_same_interval_in_the_table_and_in_its_verdict(run: Path) -> None:
    """The null control here is the base, problem by problem: nothing differs, and still nobody knows it is 0."""
    rows, found = analysed(load_study(run))
    gains = {row.arm: row.gain for row in rows if row.which != "best" and row.arm in found["lazy-sum"].verdicts}
    assert gains == {arm: verdict.gain.difference for arm, verdict in found["lazy-sum"].verdicts.items()}
    null = gains["null control"]
    assert null is not None
    assert null.low < 0 < null.high


def test_a_length_that_nobody_knows_is_a_dash(run: Path) -> None:
    folder = JobDir(run / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    write_records(folder.records("last"), [replace(record, tokens=0) for record in samples((3, 4), "so 12")])
    row = next(row for row in result_rows(load_study(run)) if row.arm == "task reward" and row.which == "last")
    assert math.isnan(row.length.value)
    page = write_report(run).read_text()
    assert "<small> · – tokens" in page
    assert "<small> · 0 tokens" not in page


def test_long_parts_are_folded_and_best_rows_behind_a_switch(run: Path) -> None:
    page = write_report(run).read_text()
    outside = re.sub(r"<script[ >].*?</script>", "", page, flags=re.DOTALL)
    assert "<details open" not in outside
    for name in ("responses", "cost", "at-k"):
        assert f'<details id="{name}">' in outside
        assert f'href="#{name}"' in outside
    assert outside.count("<details") == outside.count("</details>")
    assert outside.count('<tr class="of-best">') == 3
    assert outside.count('id="best"') == 1


def test_an_interval_is_broken_in_front_of_its_brackets_at_most(run: Path) -> None:
    table = re.search(r'<table class="results">.*?</table>', write_report(run).read_text(), re.DOTALL)
    assert table
    intervals = re.findall(r"<td[^>]*>([^<]*\[[^<]*)</td>", table[0])
    assert len(intervals) > 6
    assert all(len(cell.split(" ")) == 2 for cell in intervals)


def test_the_legend_of_the_curves_shows_their_dashes(run: Path) -> None:
    page = write_report(run).read_text()
    strokes = dict(
        re.findall(r'<button type="button" data-arm="([^"]*)"[^>]*><svg><line [^>]*stroke-dasharray="([^"]*)"', page)
    )
    assert len({strokes[name] for name in ("null control", "tempered 4", "task reward")}) == 3
