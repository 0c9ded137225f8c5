"""What tests ask of processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> list[str]:
    """A program that finds the tests, and has no main guard."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments]


def runs(pid: int) -> bool:
    """Not so where it has ended and nobody has asked for its exit code."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def write(file: str, text: str) -> None:
    """At once, for one who waits for it."""
    Path(f"{file}.{os.getpid()}.part").write_text(text)
    Path(f"{file}.{os.getpid()}.part").replace(file)
