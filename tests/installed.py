"""Is the installed tiltlab whole? python tests/installed.py PACKAGES, by a Python that has its wheel and nothing else.

PACKAGES: the folder that lends what tiltlab depends on. A small study then runs in an empty folder, with nothing of the
repository within reach.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import metadata
from pathlib import Path

STUDY = (
    *(
        "study",
        "--jobs",
        "1",
        "--set",
        "arms=[base, task_reward]",
        "--set",
        "tasks=[lazy-sum]",
        "--set",
        "train.steps=2",
    ),
    *("--set", "test={problems: 4, n: 4, forecast_n: 4}", "--set", "validation={every: 2, problems: 2}"),
)


def main(lent: Path) -> None:
    own = Path(sysconfig.get_path("purelib"))
    (own / "lent.pth").write_text(f"{lent}\n")  # behind its own; the .pth files in there are not read
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as empty:
        where = "import tiltlab; print(tiltlab.__file__, tiltlab.__version__)"
        told = subprocess.run([sys.executable, "-c", where], cwd=empty, env=clean, check=True, capture_output=True)
        file, version = told.stdout.decode().split()
        assert Path(file).is_relative_to(own), f"{file} is not the installed one"
        assert version == metadata("tiltlab")["Version"]
        assert (Path(file).parent / "py.typed").is_file()
        command = [str(Path(sys.executable).with_name("tiltlab")), *STUDY]
        subprocess.run(command, cwd=empty, env=clean, check=True)
        assert (Path(empty) / "runs" / "sums" / "report.html").stat().st_size > 100_000
    print(f"tiltlab {version}: the wheel is whole")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
