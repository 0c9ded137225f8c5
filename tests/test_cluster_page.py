"""The SLURM script of docs/cluster.md: bash reads it, and SLURM its settings."""

import re
import shlex
import subprocess
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")


def script() -> str:
    (found,) = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def test_bash_reads_it() -> None:
    done = subprocess.run(["bash", "-n"], input=script(), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_its_settings_come_before_all_commands_as_slurm_reads_them() -> None:
    first, *lines = script().splitlines()
    settings = [line for line in lines if line.startswith("#SBATCH ")]
    assert lines[: len(settings)] == settings
    given = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in settings)
    assert first == "#!/bin/bash"
    assert given == {
        "nodes": "4",
        "ntasks-per-node": "1",
        "exclusive": "",
        "gpus-per-node": "8",
        "time": "24:00:00",
        "signal": "B:TERM@300",
    }


def test_the_study_takes_the_script_s_place_and_so_its_signal() -> None:
    *before, last = script().splitlines()
    assert shlex.split(last)[:3] == ["exec", "tiltlab", "study"]
    assert "--on" in shlex.split(last)
    assert sum("srun" in line and line.endswith("&") for line in before) == 1  # Ray stays beside it
