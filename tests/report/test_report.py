import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.config.test_recipe import SMALL
from tests.report.written import write_report
from tests.stats.test_metrics import record
from tiltlab.config.recipe import Recipe
from tiltlab.errors import UserError
from tiltlab.report.alarms import fired_alarms
from tiltlab.report.figures import at_k_curve, learning_curves
from tiltlab.report.findings import findings
from tiltlab.report.headline import headline
from tiltlab.report.html import plain
from tiltlab.report.load import load_study
from tiltlab.report.page import analysed, render
from tiltlab.report.styles import arm_colours
from tiltlab.report.tables import curve_at_k, result_rows
from tiltlab.storage.files import append_line, read_json, slug, write_json
from tiltlab.storage.records import write_records
from tiltlab.storage.run_folder import JobDir
from tiltlab.types import Record

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} </script>"


ARMS: list[dict[str, Any]] = [{"arm": "base"}, {"arm": "task_reward"}, {"arm": "sharpening"}]


def made_study(run: Path, seeds: int = 1, text: str = "so 12", arms: list[dict[str, Any]] = ARMS) -> Path:
    """A study written by hand: two problems, four samples; all arms finished but for sharpening, which is missing."""
    recipe = Recipe.model_validate(SMALL | {"arms": arms})
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
        for arm in (arm for arm in recipe.arms if arm.arm != "sharpening"):
            folder = JobDir(run / "cells" / "lazy-sum" / slug(arm.name) / f"seed-{seed}")
            trained = arm.objective() is not None
            write_records(folder.records("last"), samples((3, 4 - seed) if trained else (1, 2), text))
            if trained:
                write_records(folder.records("best"), samples((4, 4), text))
                for step in range(3):
                    line = dict.fromkeys(("reward", "length", "ref_logp", "kl", "entropy"), 0.5 + seed)
                    append_line(folder.metrics, {"step": step} | line)
                append_line(folder.validation, {"step": 0, "accuracy": 0.25})
                append_line(folder.validation, {"step": 3, "accuracy": 0.75})
            taken = {"drawn": 40, "rescored": 0, "seconds": 1.0, "responses": 8, "notes": {}, "warnings": []}
            write_json(folder.sampling("last"), taken)
            write_json(folder.result, {"trained": trained, "step": 3, "best_step": 2, "reference": "x"})
    return run


def samples(right: tuple[int, int], text: str) -> list[Record]:
    """Four samples of two problems, of which so many are right; wrong ones are longer and truncated."""
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


def test_only_samples_of_temperature_1_say_how_far_an_arm_is_from_the_base(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, *({"arm": "temperature", "temperature": t} for t in (0.25, 1))]
    rows = {row.arm: row for row in result_rows(load_study(made_study(tmp_path, arms=arms)))}
    assert math.isnan(rows["temperature 0.25"].kl.value)
    assert rows["temperature 1"].kl.value == rows["base"].kl.value == 2
    page = write_report(tmp_path).read_text()
    assert page.count('<td title="–">–</td>') == 1
    assert "another temperature has none" in page
    assert "another temperature has none" not in write_report(made_study(tmp_path / "without")).read_text()


def test_an_arm_is_what_it_says_in_study_json(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, {"arm": "temperature", "temperature": 0.25}]
    path = made_study(tmp_path, arms=arms) / "study.json"
    about = read_json(path)
    assert [arm.nature for arm in load_study(tmp_path).arms] == ["base", "likelihood"]  # as of old: it does not say
    write_json(path, about | {"natures": ["base", "plain"]})
    assert [arm.own_distribution for arm in load_study(tmp_path).arms] == [True, True]
    for wrong in (["base"], ["base", "odd"]):
        write_json(path, about | {"natures": wrong})
        with pytest.raises(UserError, match=r"study.json .*natures"):
            load_study(tmp_path)


def test_the_base_s_path_is_told_once_for_all_trained_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr("tiltlab.verdict.base_path.enough", lambda samples: told.append(samples) or np.zeros(2, bool))
    arms = [{"arm": "base"}, {"arm": "task_reward"}, {"arm": "tilted", "beta": 0.1}, {"arm": "tempered", "alpha": 2}]
    found = findings(load_study(made_study(tmp_path, arms=arms)), "lazy-sum")
    assert len(found.verdicts) == 3
    assert len(told) == 1


def test_notes_by_the_place_of_the_cut_are_read_and_a_log_z_of_them_is_not(tmp_path: Path) -> None:
    """As power MCMC leaves them, with NaN where nothing was tried."""
    run = made_study(tmp_path, arms=[{"arm": "base"}, {"arm": "power_mcmc", "alpha": 4}])
    path = JobDir(run / "cells" / "lazy-sum" / "power-mcmc-4" / "seed-0").sampling("last")
    write_json(path, read_json(path) | {"notes": {"acceptance": [1.0], "acceptance_by_cut": [[0.5, math.nan]]}})
    assert write_report(run).exists()
    write_json(path, read_json(path) | {"notes": {"log_z": [[0.5]]}})
    with pytest.raises(UserError, match="log_z is a number a problem"):
        load_study(run)


def test_the_base_is_known_by_its_kind(tmp_path: Path) -> None:
    arms = [{"arm": "task_reward", "label": "base"}, {"arm": "base", "label": "untouched"}]
    study = load_study(made_study(tmp_path, arms=arms))
    rows = result_rows(study)
    assert {row.arm: row.gain is None for row in rows} == {"base": False, "untouched": True}
    (dotted,) = headline(study, rows).layout.shapes
    assert dotted.x0 == pytest.approx(3 / 8)


def test_the_page_tells_what_differs_between_the_arms(tmp_path: Path) -> None:
    arms = [{"arm": "tempered", "alpha": alpha} for alpha in (2, 4)]
    study = load_study(made_study(tmp_path, arms=[{"arm": "base"}, {"arm": "task_reward"}, *arms]))
    page = render(study, *analysed(study))
    table = page[page.index("What differs between the arms") :]
    heads = re.findall(r"<th>(.*?)</th>", table[: table.index("</thead>")])
    assert {"arm", "alpha"} <= set(heads)
    assert "fixed_length" not in heads
    assert re.search(r"<tr><td>tempered 4</td>.*<td>4.0</td>", table)


def test_a_study_without_a_base_shows_no_gains(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path, arms=[{"arm": "task_reward"}]))
    rows = result_rows(study)
    assert [row.gain for row in rows] == [None, None]
    assert not headline(study, rows).layout.shapes
    page = render(study, *analysed(study))
    assert "gain on the base" not in page
    assert "Dotted" not in page


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
    assert "1 job is missing" in page
    with pytest.raises(UserError, match="holds no study"):
        load_study(tmp_path / "cells")
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(UserError, match="no finished job"):
        load_study(tmp_path)


def fail(run: Path, arm: str, seed: int, error: str) -> None:
    """Turn a job into one that broke off after two steps."""
    folder = JobDir(run / "cells" / "lazy-sum" / slug(arm) / f"seed-{seed}")
    folder.result.unlink(missing_ok=True)
    folder.metrics.unlink(missing_ok=True)
    write_json(folder.failed, {"error": error, "traceback": "..."})
    for step, value in enumerate((0.5, math.nan)):
        append_line(folder.metrics, {"step": step} | dict.fromkeys(("reward", "length", "ref_logp", "entropy"), value))


def test_a_failed_job_is_told_and_the_others_shown(tmp_path: Path) -> None:
    fail(made_study(tmp_path, seeds=2), "sharpening", 0, "its gradient <b>is</b>\nnot finite")
    fail(tmp_path, "task reward", 1, "too")
    study = load_study(tmp_path)
    assert study.missing == 1  # seed 1 of sharpening
    assert [str(job) for job in study.failed] == [
        "lazy-sum / task reward / seed 1: too",
        "lazy-sum / sharpening / seed 0: its gradient <b>is</b> not finite",
    ]
    page = render(study, *analysed(study))
    assert (
        "<strong>Failed:</strong> lazy-sum / sharpening / seed 0: its gradient &lt;b&gt;is&lt;/b&gt; not finite" in page
    )
    assert 'data-arm="sharpening"' in page
    last = next(row for row in result_rows(study) if row.which == "last")
    assert last.accuracy.value == pytest.approx(7 / 8)  # of the seed that was finished
    reward = learning_curves(study, "lazy-sum", [("metrics", "reward", "")])
    assert [(len(trace.x), trace.line.dash) for trace in reward.data] == [(3, None), (2, "dash"), (2, "dash")]


def test_alarms_of_a_failed_job_show_on_its_curve(tmp_path: Path) -> None:
    fail(made_study(tmp_path, seeds=2), "sharpening", 0, "not finite")
    folder = JobDir(tmp_path / "cells" / "lazy-sum" / "sharpening" / "seed-0")
    for step in range(2, 12):
        append_line(folder.metrics, {"step": step, "length": 20.0 if step < 8 else 2.0})
    study = load_study(tmp_path)
    (one,) = [one for one in fired_alarms(study, "lazy-sum") if one.arm == "sharpening" and one.seed == 0]
    length = learning_curves(study, "lazy-sum", [("metrics", "length", "")], [one])
    (triangle,) = [trace for trace in length.data if trace.marker.symbol == "triangle-up"]
    assert (list(triangle.x), list(triangle.y)) == ([one.alarm.step], [2.0])


def test_a_last_checkpoint_that_is_the_best_has_one_row_and_each_row_its_own_cost(tmp_path: Path) -> None:
    run = made_study(tmp_path)
    folder = JobDir(run / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    write_json(folder.sampling("best"), read_json(folder.sampling("last")) | {"drawn": 80})
    trained = [row for row in result_rows(load_study(run)) if row.which]
    assert [(row.which, row.is_best, row.checkpoint, row.tokens_used) for row in trained] == [
        ("last", False, "last", 5.0), ("best", True, "best", 10.0),
    ]  # fmt: skip
    write_json(folder.result, {"trained": True, "step": 3, "best_step": 3, "reference": "x"})
    (row,) = [row for row in result_rows(load_study(run)) if row.which]
    assert (row.which, row.is_best, row.checkpoint) == ("last", True, "last = best")
    assert "last = best" in write_report(run).read_text()


def test_a_damaged_job_is_named(tmp_path: Path) -> None:
    run = made_study(tmp_path)
    folder = JobDir(run / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    harm: list[tuple[Path, str, str]] = [
        (folder.metrics, '{"half": 1}\n', "line 1 has no step"),
        (folder.records("last"), "", "holds no record"),
        (folder.result, "{}", "trained"),
        (folder.tokens("last"), "{}\n", "line 1 has no problem"),
        (folder.sampling("last"), "x", "sampling-last.json is not JSON"),
    ]
    for path, text, said in harm:
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            load_study(run)
        path.unlink() if before is None else path.write_text(before)
    load_study(run)


def test_a_study_of_failures_alone_says_why(tmp_path: Path) -> None:
    made_study(tmp_path, arms=[{"arm": "task_reward"}])
    fail(tmp_path, "task reward", 0, "no gradient")
    with pytest.raises(UserError, match="no finished job; failed: lazy-sum / task reward / seed 0: no gradient"):
        load_study(tmp_path)


def strictly(text: str) -> Any:
    """JSON as a browser reads it, without NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_reaches_the_browser_as_null(tmp_path: Path) -> None:
    folder = JobDir(made_study(tmp_path) / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    strange = {"step": 3, "reward": math.nan, "length": math.inf, "ref_logp": None, "kl": -math.inf, "entropy": 1.0}
    append_line(folder.metrics, strange)
    base = JobDir(tmp_path / "cells" / "lazy-sum" / "base" / "seed-0")
    ungraded = [replace(record, reward=math.nan, reason="error") for record in samples((1, 2), "")]
    write_records(base.records("last"), ungraded)
    page = write_report(tmp_path).read_text()
    (figures,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)
    drawn = strictly(figures)
    assert drawn["curves-0-reward"]["data"][0]["y"] == [0.5, 0.5, 0.5, None]
    assert not drawn["headline-0"]["layout"].get("shapes")  # no dotted line at a base that nobody could grade
    assert drawn["headline-0"]["data"][0]["x"] == [None]
    assert "nan" not in re.sub(r"<script[ >].*?</script>", "", page, flags=re.DOTALL)


def test_every_kind_of_number_finds_its_null() -> None:
    figure = go.Figure()
    figure.add_scatter(x=np.array([1.0, math.nan]), y=[math.inf, np.float32(2)], customdata=np.array([None, math.nan]))
    figure.add_heatmap(z=np.array([[1, 2], [3, -math.inf]], dtype="f4"))
    figure.add_scatter(x=np.array([1.0, 2.0]), meta={"a": (np.float64("nan"), np.int64(3), "NaN")})
    scatter, heatmap, finite = strictly(json.dumps(plain(figure.to_plotly_json())))["data"]
    assert (scatter["x"], scatter["y"], scatter["customdata"]) == ([1, None], [None, 2], [None, None])
    assert heatmap["z"] == [[1, 2], [3, None]]
    assert finite["x"]["dtype"] == "f8"  # packed as it was
    assert finite["meta"]["a"] == [None, 3, "NaN"]


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
    assert {trace.name for trace in at_k_curve(study, "lazy-sum", "maj").data} == set(colours)


def test_a_label_cannot_break_the_page(tmp_path: Path) -> None:
    study = load_study(made_study(tmp_path))
    renamed = replace(study, arms=[replace(arm, name=f"{HOSTILE} {i}") for i, arm in enumerate(study.arms)])
    page = render(renamed, *analysed(renamed))
    outside = re.sub(r"<script[ >].*?</script>", "", page, flags=re.DOTALL)
    assert "<img" not in outside
    (figures,) = re.findall(r'id="figures">(.*?)</script>', page, flags=re.DOTALL)
    shown = json.loads(figures)["headline-0"]["data"][0]["y"][0]
    assert "<img" not in shown.replace("<br>", "")  # Plotly reads markup of its own in what it draws
    assert "&lt;script&gt;" in shown


def test_the_report_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    made_study(tmp_path)
    code = f"""
import sys
from pathlib import Path
from rich.console import Console
from tiltlab.report.load import load_study
from tiltlab.report.page import analysed, write_analysed
from tiltlab.report.terminal import print_tables
run = Path({str(tmp_path)!r})
write_analysed(run, load_study(run), *analysed(load_study(run)))
print_tables(load_study(run), *analysed(load_study(run)), Console())
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
    dom = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=True).stdout
    plots = re.findall(r'class="[^"]*\bplot\b[^"]*" id="([\w-]+)"|id="([\w-]+)" class="[^"]*\bplot\b', dom)
    assert len(plots) == 1 + 1 + 1 + 1 + 6 + 2
    assert dom.count("js-plotly-plot") >= len(plots)  # all were drawn
    assert "alert(1)" in dom
    assert "<img src" not in dom
