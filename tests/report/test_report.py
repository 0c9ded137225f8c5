import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_metrics import record
from tests.test_recipe import SMALL
from tiltlab.errors import UserError
from tiltlab.recipe import Recipe
from tiltlab.report.figures import arm_colours, at_k_curves, headline, learning_curves
from tiltlab.report.load import load_study
from tiltlab.report.page import render, write_report
from tiltlab.report.tables import curve_at_k, result_rows
from tiltlab.rundir import CellDir, append_line, slug, write_json, write_records
from tiltlab.types import Record

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} </script>"


def made_study(run: Path, seeds: int = 1, text: str = "so 12") -> Path:
    """A finished study written by hand: two problems, four samples, two arms."""
    recipe = Recipe.model_validate(SMALL | {"arms": ["base", "task_reward", "sharpening"]})
    about = {
        "recipe": recipe.model_dump(mode="json"),
        "arms": [arm.name for arm in recipe.arms],
        "seeds": seeds,
        "data": {"lazy-sum": {"test": {"problems": 2, "sha256": "0" * 64}}},
        "made": [
            {"command": ["tiltlab", text], "versions": {"torch": "0"}, "python": "3", "machine": "m", "commit": None}
        ],
    }
    write_json(run / "study.json", about)
    append_line(run / "problems.jsonl", {"task": "lazy-sum", "id": "p0", "question": text, "answer": "12"})
    for seed in range(seeds):
        for arm, right in (("base", (1, 2)), ("task reward", (3, 4 - seed))):
            folder = CellDir(run / "cells" / "lazy-sum" / slug(arm) / f"seed-{seed}")
            trained = arm != "base"
            write_records(folder.records("last"), samples(right, text))
            if trained:
                write_records(folder.records("best"), samples((4, 4), text))
                for step in range(3):
                    line = dict.fromkeys(("reward", "length", "ref_logp", "kl", "entropy"), 0.5 + seed)
                    append_line(folder.metrics, {"step": step} | line)
                append_line(folder.select, {"step": 0, "accuracy": 0.25})
                append_line(folder.select, {"step": 3, "accuracy": 0.75})
            write_json(folder.result, {"trained": trained, "step": 3, "best_step": 2, "reference": "x"})
    return run


def samples(right: tuple[int, int], text: str) -> list[Record]:
    """Four samples of two problems, of which so many are right; wrong ones are longer and cut off."""
    return [
        record(float(i < count), problem=f"p{p}", sample=i, text=text, answer=str(i >= count), complete=i < count,
               tokens=4 if i < count else 10)
        for p, count in enumerate(right)
        for i in range(4)
    ]  # fmt: skip


def test_rows_hold_what_the_records_say(tmp_path: Path) -> None:
    rows = {(row.arm, row.which): row for row in result_rows(load_study(made_study(tmp_path)))}
    assert set(rows) == {("base", ""), ("task reward", "last"), ("task reward", "best")}
    base, last = rows["base", ""], rows["task reward", "last"]
    assert base.accuracy.value == pytest.approx(3 / 8)
    assert last.accuracy.value == pytest.approx(7 / 8)
    assert base.gain is None
    assert last.gain is not None
    assert last.gain.value == pytest.approx(1 / 2)
    assert rows["task reward", "best"].accuracy.value == 1
    assert (last.steps, rows["task reward", "best"].steps) == ([3], [2])
    assert base.k == 4
    assert base.pass_k.value == 1
    assert base.maj_k.value == pytest.approx(1 / 4)  # p0: 1 against 3; p1: 2 against 2, a tie shared out
    assert base.truncated == pytest.approx(5 / 8)
    assert base.length.value == pytest.approx((4 * 3 + 10 * 5) / 8)
    assert last.kl.value == 2


def test_several_seeds_are_averaged_by_problem_and_shown_apart(tmp_path: Path) -> None:
    rows = result_rows(load_study(made_study(tmp_path, seeds=2)))
    last = next(row for row in rows if row.arm == "task reward" and row.which == "last")
    assert last.seed_accuracies == pytest.approx([7 / 8, 6 / 8])
    assert last.accuracy.value == pytest.approx(13 / 16)
    assert last.over_seeds is not None
    assert last.over_seeds.low < 0.75 < 0.875 < last.over_seeds.high


def test_curves_rise_to_the_table(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path))
    curve = curve_at_k(study.arms[0], "last", "pass")
    assert [k for k, _ in curve] == [1, 2, 3, 4]
    assert curve[0][1].value == pytest.approx(3 / 8)
    assert curve[-1][1].value == 1


def test_a_study_that_is_not_finished_can_be_looked_at(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path))
    assert study.missing == 1  # the arm that has no folder yet
    page = write_report(tmp_path).read_text()
    assert "1 cell is missing" in page
    with pytest.raises(UserError, match="holds no study"):
        load_study(tmp_path / "cells")
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(UserError, match="no finished cell"):
        load_study(tmp_path)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = write_report(made_study(tmp_path, text=HOSTILE)).read_text()
    outside = re.sub(r"<script[ >].*?</script>", "", page, flags=re.DOTALL)
    assert "alert(1)" in outside
    assert "&lt;script&gt;alert(1)" in outside
    assert "<img" not in outside
    assert "{{ 7 * 7 }}" in outside
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 3  # plotly, the figures, and the page's own
    json.loads(scripts[1])
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", outside)


def test_colours_tell_arms_apart_in_every_figure(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path, seeds=2))
    colours = arm_colours(study)
    assert len(set(colours.values())) == len(colours)
    rows = result_rows(study)
    drawn = headline(study, rows).to_plotly_json()["data"]
    assert {trace["name"]: trace["marker"]["color"] for trace in drawn} == colours
    assert len(learning_curves(study, "lazy-sum").data) == 6 * 3  # line and two edges of a band, in six panels
    assert {trace.name for trace in at_k_curves(study, "lazy-sum").data} == set(colours)


def test_a_label_cannot_break_the_page(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path))
    renamed = replace(study, arms=[replace(arm, name=f"{HOSTILE} {i}") for i, arm in enumerate(study.arms)])
    outside = re.sub(r"<script[ >].*?</script>", "", render(renamed), flags=re.DOTALL)
    assert "<img" not in outside


def test_the_report_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    made_study(tmp_path)
    code = f"""
import sys
from pathlib import Path
from rich.console import Console
from tiltlab.report.page import render, write_report
from tiltlab.report.terminal import print_tables
write_report(Path({str(tmp_path)!r})); print_tables(Path({str(tmp_path)!r}), Console())
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_a_browser_draws_the_page_and_runs_no_text(tmp_path: Path) -> None:
    page = write_report(made_study(tmp_path, text=HOSTILE))
    assert CHROMIUM is not None
    quiet = "--headless --no-sandbox --disable-gpu --disable-sync --disable-background-networking"
    once = f"--virtual-time-budget=5000 --dump-dom --user-data-dir={tmp_path / 'profile'}"
    arguments = [CHROMIUM, *quiet.split(), *once.split(), page.as_uri()]
    dom = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True).stdout
    assert dom.count('class="main-svg"') >= 3  # plots were drawn
    assert "alert(1)" in dom
    assert "<img src" not in dom
