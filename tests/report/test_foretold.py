"""Runs without a label: what was foretold, what came, and where on their path they stand."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.forecast.test_lines import world
from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.forecast.forecast import base_forecast
from tiltlab.forecast.lines import LinePoint
from tiltlab.report.along import Standing, along
from tiltlab.report.findings import findings
from tiltlab.report.foretold import foretold, method_of, place_on
from tiltlab.report.load import Study, load_study
from tiltlab.report.page import analysed
from tiltlab.report.styles import arm_colours, arm_symbols, family
from tiltlab.report.terminal import print_tables
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import read_json, write_text
from tiltlab.storage.records import write_records
from tiltlab.storage.run_folder import JobDir
from tiltlab.types import Record

ARMS: list[dict[str, Any]] = [
    {"arm": "base"},
    {"arm": "majority", "of": 16},
    {"arm": "answer_power", "g": 2},
    {"arm": "tempered", "alpha": 4},
    {"arm": "task_reward"},
    {"arm": "task_reward", "signal": "vote"},
    {"arm": "task_reward", "signal": "random"},
    {"arm": "task_reward", "advantage": "maxrl"},
    {"arm": "entropy_minimization"},
]


def named(records: list[Record]) -> list[Record]:
    return [replace(record, task="lazy-sum", sample=i % 32) for i, record in enumerate(records)]


def write_job(run: Path, arm: str, records: list[Record]) -> None:
    job = JobDir(run / "cells" / "lazy-sum" / arm / "seed-0")
    for which in ("last", "best")[: 1 if arm == "base" else 2]:
        write_records(job.records(which), named(records))
    sampling = read_json(job.sampling("last")) | {"responses": len(records)}
    write_text(job.sampling("last"), json.dumps(sampling))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """On a task where votes are right and the likeliest response is wrong: votes rose, tempered fell."""
    run = made_study(tmp_path_factory.mktemp("run"), arms=ARMS)
    base = world("spread")
    right, wrong = ([r for r in base if (r.answer == "1") is good] for good in (True, False))
    for job in (run / "cells" / "lazy-sum").iterdir():
        write_job(run, job.name, base)
    by_problem = {str(p): [r for r in right if r.problem == str(p)] for p in range(40)}
    write_job(run, "vote", [(group * 32)[i] for group in by_problem.values() for i in range(32)])
    likely = {r.problem: r for r in wrong if r.answer == "2"}
    write_job(run, "tempered-4", [likely[str(p)] for p in range(40) for _ in range(32)])
    return run, load_study(run)


def test_runs_are_told_beside_what_was_foretold(study: tuple[Path, Study]) -> None:
    told = {one.arm: one for one in foretold(study[1], "lazy-sum", findings(study[1], "lazy-sum"))}
    assert set(told) == {"vote", "tempered 4", "entropy minimization"}
    vote, tempered = told["vote"], told["tempered 4"]
    assert (vote.rise.outcome, vote.came, vote.kept) == ("rises", "rose", True)
    assert (tempered.rise.outcome, tempered.came, tempered.kept) == ("collapses", "fell", True)
    assert vote.words.startswith("0.646 → 1.000")
    assert re.search(r"It went further than the vote of \d+", vote.words)
    assert re.search(r"It stands where the likeliest of [\d.]+ would, which has 0\.0", tempered.words)
    assert tempered.standing is not None
    assert tempered.standing.k > 4


def test_a_run_that_rose_and_fell_on_validation_is_said_to(study: tuple[Path, Study], tmp_path: Path) -> None:
    run = made_study(tmp_path, arms=[ARMS[0], ARMS[5]])
    write_job(run, "base", world("spread"))
    lines = [{"step": step, "accuracy": value} for step, value in ((0, 0.6), (10, 0.8), (20, 0.5))]
    path = JobDir(run / "cells" / "lazy-sum" / "vote" / "seed-0").validation
    common = json.loads(path.read_text().splitlines()[0])
    write_text(path, "".join(json.dumps(common | line) + "\n" for line in lines))
    write_job(run, "vote", world("lazy"))
    (told,) = foretold(load_study(run), "lazy-sum", findings(load_study(run), "lazy-sum"))
    assert told.came == "rose, then fell"
    assert "on validation 0.800 at step 10" in told.words


def test_a_place_on_a_path_lies_between_its_points() -> None:
    def point(k: float, accuracy: float) -> LinePoint:
        return LinePoint(k, Interval(accuracy, 0, 1), None, None)

    path = [(point(k, a), Interval(h, h, h)) for k, a, h in ((1, 0.2, -9.0), (4, 0.4, -5.0), (16, 0.8, -3.0))]
    assert place_on(path, -9.5) == pytest.approx((1, 0.2, False))
    assert place_on(path, -7.0) == pytest.approx((2, 0.3, False))
    assert place_on(path, -3.0) == pytest.approx((16, 0.8, False))
    assert place_on(path, -1.0) == pytest.approx((16, 0.8, True))
    assert place_on(path[:1], -1.0) is None


@pytest.mark.parametrize(
    ("arm", "method"),
    [
        ({"arm": "task_reward", "signal": "vote"}, "vote"),
        ({"arm": "task_reward"}, None),
        ({"arm": "task_reward", "signal": "random"}, None),
        ({"arm": "tempered", "alpha": 4, "length": "sum"}, "tempered"),
        ({"arm": "tempered", "alpha": 4, "length": "mean"}, None),
        ({"arm": "tempered", "alpha": 1}, None),
        ({"arm": "sharpening"}, "sharpening"),
        ({"arm": "entropy_minimization", "weight": 1.0}, "entropy"),
    ],
)
def test_only_what_trains_on_the_base_itself_is_foretold(arm: dict[str, Any], method: str | None) -> None:
    assert method_of(arm) == method


def test_arms_that_reward_themselves_have_names_families_and_looks_of_their_own(study: tuple[Path, Study]) -> None:
    configs = study[1].configs
    assert {"vote", "random reward", "task reward, maxrl", "answer power 2", "entropy minimization"} < set(configs)
    families = {name: family(config) for name, config in configs.items()}
    assert families["vote"] == families["random reward"] == families["entropy minimization"] == "own reward"
    assert families["task reward, maxrl"] == "reward"
    assert families["majority of 16"] == families["answer power 2"] == "sampler"
    assert len(set(arm_colours(study[1]).values())) == len(configs)
    assert "diamond" in arm_symbols(study[1])["answer power 2"]


def test_page_and_terminal_tell_it(study: tuple[Path, Study]) -> None:
    run, read = study
    page = re.sub(r"<script[ >].*?</script>", "", write_report(run).read_text(), flags=re.DOTALL)
    assert 'href="#foretold"' in page
    part = page[page.index('<h2 id="foretold">') : page.index('<h2 id="results">')]
    assert re.search(
        r"vote</td><td><strong>rises</strong></td><td class=\"why\"><strong>rose</strong>: 0\.646 → 1", part
    )
    assert 'id="along-0"' in part
    console = Console(width=200)
    with console.capture() as caught:
        print_tables(read, *analysed(read), console)
    assert "foretold: lazy-sum: tempered 4 collapses: fell; vote rises: rose" in caught.get()


def test_without_samples_for_a_path_nothing_is_foretold(tmp_path: Path) -> None:
    run = made_study(tmp_path, arms=[ARMS[0], ARMS[5]])
    page = write_report(run).read_text()
    assert 'id="foretold"' not in page


def test_runs_stand_beside_their_path_on_an_axis_of_whole_ks() -> None:
    lines = base_forecast(world("spread")).lines
    assert lines is not None
    at = Interval(0.5, 0.4, 0.6)
    figure = along(
        lines, [Standing("a", 3, at, False, "#000000", "square"), Standing("b", 32, at, True, "#000000", "x")]
    )
    assert figure is not None
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "4", "8", "16", "32"]
    assert [trace.marker.symbol for trace in figure.data[-2:]] == ["square", "triangle-right"]
    names = [note.text for note in figure.layout.annotations]
    assert {"a", "b", "forecast: sharpening", "forecast: voting"} == set(names)
    few = base_forecast(world("noisy", 6)).lines
    assert few is not None
    assert along(few) is None
