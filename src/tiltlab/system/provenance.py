"""How a result was made: versions, commit, machine, command. Goes into every run folder and page."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "tiltlab",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "datasets",
    "pyarrow",
    "reasoning-gym",
    "numpy",
    "scipy",
    "plotly",
    "pydantic",
)


def provenance() -> dict[str, object]:
    """Versions, Python, machine, commit and command, as plain values. Names neither the host nor the user."""
    return {
        "versions": {name: installed for name in PACKAGES if (installed := _version(name))},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "command": ["tiltlab", *sys.argv[1:]],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this module runs from, with "+changes" where files differ; None elsewhere."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        inside = _git(folder, "ls-files", Path(__file__).name)  # a site-packages inside some other checkout is not it
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or a git that hangs
        return None
    return (commit + "+changes" * bool(changes)) if inside else None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
