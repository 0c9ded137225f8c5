"""Renders the README's pictures with a headless Chromium: python docs/pictures.py RUN FOLDER

The headline and the frontiers of RUN's report, and the curves of its first task, each the figure that users see.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tiltlab.report.figures import learning_curves
from tiltlab.report.findings import findings
from tiltlab.report.frontier import frontier
from tiltlab.report.headline import headline
from tiltlab.report.load import Study, load_study
from tiltlab.report.page import reached
from tiltlab.report.tables import result_rows
from tiltlab.storage.files import slug


def picture(figure: go.Figure, width: int, path: Path) -> None:
    """One figure, dark ink on white, as a PNG twice as sharp as the screen's pixels."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("a Chromium is needed to make pictures")
    height = int(figure.layout.height)
    figure.update_layout(paper_bgcolor="white", font_color="#1f2937")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        still = "{config: {staticPlot: true, displayModeBar: false}}"
        draw = f"Plotly.newPlot('p', Object.assign({figure.to_json()}, {still}))"
        box = f"<div id=p style='width:{width}px;height:{height}px'></div>"
        page.write_text(f"<body style='margin:0'>{box}<script>{get_plotlyjs()}</script><script>{draw}</script>")
        quiet = "--headless --no-sandbox --disable-gpu --disable-sync --disable-background-networking --hide-scrollbars"
        shot = f"--screenshot={path} --window-size={width},{height} --force-device-scale-factor=2"
        once = f"--virtual-time-budget=5000 --user-data-dir={folder}/profile"
        command = [chromium, *quiet.split(), *shot.split(), *once.split(), page.as_uri()]
        said = subprocess.run(command, capture_output=True, text=True, check=False)  # it is noisy where all is well
        if said.returncode or not path.exists():
            raise SystemExit(f"Chromium made no picture:\n{said.stderr}")
    print(path)


def pictured(study: Study, task: str) -> go.Figure:
    return frontier(findings(study, task).forecast, reached(study, result_rows(study), task), task)


def main(run: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    study = load_study(run)
    picture(headline(study, result_rows(study)), 1100, folder / "headline.png")
    for task in study.tasks:
        picture(pictured(study, task), 550, folder / f"frontier-{slug(task)}.png")
    picture(learning_curves(study, study.tasks[0]), 1100, folder / "curves.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
