"""Rewards that look reasonable and are not, for trying `tiltlab check` on:

tiltlab check math500 --reward tiltlab.examples.flawed_rewards:substring
"""

import re
from typing import Any


def substring(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """Right where the gold answer stands anywhere in the response: list every number, and one of them is it."""
    return [float(gold in text) for text, gold in zip(completions, answer, strict=True)]


def last_number(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """Right where the last number of the response is the gold answer: no need to say that it is the answer."""
    numbers_of = [re.findall(r"-?\d+(?:\.\d+)?", text) for text in completions]
    return [float(bool(numbers) and numbers[-1] == gold) for numbers, gold in zip(numbers_of, answer, strict=True)]


def length_bonus(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """A point for the right box, and up to two more for showing one's work: rambling pays better than being right."""
    right = [f"\\boxed{{{gold}}}" in text for text, gold in zip(completions, answer, strict=True)]
    return [float(ok) + min(2.0, len(text) / 1000) for ok, text in zip(right, completions, strict=True)]
