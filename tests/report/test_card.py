"""Model cards: what the hub reads, and what a reader needs."""

from pathlib import Path

import yaml

from tests.report.test_report import made_study
from tests.report.written import write_report
from tiltlab.storage.run_folder import JobDir


def test_each_kept_checkpoint_gets_a_card(tmp_path: Path) -> None:
    run = made_study(tmp_path / "run", text="rm `x` | <b>")
    checkpoints = JobDir(run / "cells" / "lazy-sum" / "task-reward" / "seed-0").checkpoints
    for step in (2, 3):
        checkpoints.step(step).mkdir(parents=True)
    write_report(run)
    last = (checkpoints.step(3) / "README.md").read_text()
    _, front, body = last.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "transformers", "tags": ["tiltlab", "reinforcement-learning"]}
    assert "The last checkpoint (step 3) of arm *task reward*" in body
    assert "| task reward | 0.875 [" in body
    assert "| base | 0.375 [" in body
    assert "Verdict: **" in body
    assert "lr: " in body
    assert "`tiltlab rm 'x' | <b>`" in body
    assert "2604.16259" in body
    best = (checkpoints.step(2) / "README.md").read_text()
    assert "| task reward | 1.000 [" in best
    assert "Verdict" not in best
