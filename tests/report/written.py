"""The report of a run folder, as the command line writes it."""

from pathlib import Path

from tiltlab.report.load import load_study
from tiltlab.report.page import analysed, write_analysed


def write_report(run: Path) -> Path:
    study = load_study(run)
    return write_analysed(run, study, *analysed(study))
