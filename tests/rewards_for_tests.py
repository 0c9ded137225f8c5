"""Reward functions that recipes in tests name."""

import math
import os
import signal
import time
from typing import Any


def late_nan(completions: list[str], **_: Any) -> list[float]:
    """Fine on the gold answers that a study tries it on, NaN on anything else."""
    return [float(text) if text.isdigit() else math.nan for text in completions]


def always_nan(completions: list[str], **_: Any) -> list[float]:
    return [math.nan for _ in completions]


def too_few(completions: list[str], **_: Any) -> list[float]:
    return [1.0]


def shortness(completions: list[str], **_: Any) -> list[float]:
    return [-len(text) / 10 for text in completions]


def sleeps_for_ever() -> None:
    while True:
        time.sleep(1)


def dies(really: bool) -> str:
    if really:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"
