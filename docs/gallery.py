"""Makes the pages of the gallery: python docs/gallery.py FOLDER

Real commands on the embedded model, small enough for a minute or two; the last page of each is put into FOLDER.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL = [
    *("--set", "train={steps: 15, prompts: 8, responses: 8, max_tokens: 64, optimizer: {lr: 1.0e-3}}"),
    *("--set", "test={problems: 24, n: 8, forecast_n: 24}", "--set", "validation={every: 15, problems: 8}"),
    *("--set", "tasks=[lazy-sum]"),
]
ARMS = "arms=[base, {arm: temperature, temperature: 0.25}, {arm: tempered, alpha: 1}, sharpening, task_reward]"
TUNED = "one/cells/lazy-sum/task-reward/seed-0/checkpoints/step-000015"
DRAW = ["--task", "lazy-sum", "--limit", "24", "--max-tokens", "64"]

PAGES = {
    "study": (["study", "--out", "one", "--set", ARMS, *SMALL], "one/report.html"),
    "compare": (["compare", "one", "two", "--out", "compare"], "compare/compare.html"),
    "verdict": (["verdict", "--base", "embedded", "--tuned", TUNED, *DRAW, "--out", "verdict"], "verdict/verdict.html"),
    "forecast": (["forecast", "--base", "embedded", *DRAW, "-n", "32", "--out", "forecast"], "forecast/forecast.html"),
    "evaluate": (["evaluate", "--model", "embedded", *DRAW, "-n", "8", "--out", "evaluate"], "evaluate/report.html"),
    "check": (["check", "lazy-sum", "--reward", "tiltlab.examples.flawed_rewards:substring"], "check.html"),
    "lab": (["lab", "--seeds", "4"], "lab.html"),
}
OTHER = ["study", "--out", "two", "--set", "arms=[base, {arm: tilted, beta: 0.1}]", *SMALL]


def run(arguments: list[str], folder: Path, *, may_fail: bool = False) -> None:
    done = subprocess.run([Path(sys.executable).with_name("tiltlab"), *arguments], cwd=folder, check=False)
    if done.returncode not in ((0, 1) if may_fail else (0,)):
        raise SystemExit(f"tiltlab {arguments[0]} ended with {done.returncode}")


def main(into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(OTHER, folder)
        for page, (arguments, path) in PAGES.items():
            run(arguments, folder, may_fail=page == "check")  # 1: the reward fails its probes, as it should
            shutil.copyfile(folder / path, into / f"{page}.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
