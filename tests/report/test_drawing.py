"""How far what drew the responses is from what was trained, on the page."""

import math
from pathlib import Path

import pytest

from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.errors import UserError
from tiltlab.report.alarms import fired_alarms
from tiltlab.report.figures import learning_curves
from tiltlab.report.load import load_study
from tiltlab.storage.files import append_line, read_lines, write_lines
from tiltlab.storage.run_folder import JobDir

OF_DRAWING = ["curves-0-mismatch_mean", "curves-0-ess", "curves-0-kl_sampler"]


def drawn_by_another(run: Path, ess: float, mismatch: float) -> list[str]:
    """The curves of drawing on the page, after three steps of the trained arm that these figures are of."""
    folder = JobDir(run / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    lines = [{**line, "ess": ess, "mismatch_mean": mismatch, "kl_sampler": 0.1} for line in read_lines(folder.metrics)]
    write_lines(folder.metrics, lines)
    page = write_report(run).read_text()
    assert all(page.count(f'id="{key}"') == (f'"{key}"' in page.split('id="figures"')[1]) for key in OF_DRAWING)
    return [key for key in OF_DRAWING if f'id="{key}"' in page]


def test_how_far_the_sampler_is_from_the_trainer_is_shown_where_it_matters(tmp_path: Path) -> None:
    """Not for a study of a version that wrote nothing of it, nor where all there is is rounding."""
    run = made_study(tmp_path)
    assert drawn_by_another(run, math.nan, 1e-6) == []
    assert drawn_by_another(run, 0.999, 1e-6) == []
    assert drawn_by_another(run, 0.4, 0.05) == OF_DRAWING


def test_a_mismatch_has_its_triangle_on_its_curve(tmp_path: Path) -> None:
    drawn_by_another(made_study(tmp_path), 0.4, 0.2)
    study = load_study(tmp_path)
    (one,) = [one for one in fired_alarms(study, "lazy-sum") if one.alarm.kind == "sampler mismatch"]
    figure = learning_curves(study, "lazy-sum", [("metrics", "mismatch_mean", "")], [one])
    (triangle,) = [trace for trace in figure.data if trace.marker.symbol == "triangle-up"]
    assert (list(triangle.x), list(triangle.y)) == ([1], [0.2])


@pytest.mark.parametrize("key", ["ess", "capped"])
def test_a_share_beyond_one_is_damage(key: str, tmp_path: Path) -> None:
    folder = JobDir(made_study(tmp_path) / "cells" / "lazy-sum" / "task-reward" / "seed-0")
    append_line(folder.metrics, {"step": 3, key: 1.5})
    with pytest.raises(UserError, match=rf"metrics.jsonl line 4 cannot have {key} = '1.5'"):
        load_study(tmp_path)
