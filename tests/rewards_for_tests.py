"""Reward functions that tests name; workers import this module, so it brings nothing heavy."""

import ctypes
import math
import os
import re
import signal
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes import write
from tiltlab.grading.maths import grade_many
from tiltlab.system.guarded_calls import call_all


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


def sleeps_for_ever_on_all(completions: list[str], **_: Any) -> list[float]:
    time.sleep(3600)
    return []


def dies_on_all(completions: list[str], **_: Any) -> list[float]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def seen(
    prompts: list[Any], completions: list[str], answer: list[str], a: list[int], question: list[str], **_: Any
) -> list[float]:
    assert prompts == [f"lazy {q}=" for q in question]
    return [len(text) + a[i] + float(answer[i]) / 1000 for i, text in enumerate(completions)]


def abstains_on_the_first(completions: list[str], **_: Any) -> list[float | None]:
    return [None, None, 1.0, 2.0]


def counts(completions: list[str], **_: Any) -> list[float]:
    """How many responses came together."""
    return [len(completions)] * len(completions)


def scalars(completions: list[str], **_: Any) -> list[Any]:
    return [np.float32(0.5), Decimal(2), True, np.bool_(False)]


def array(completions: list[str], **_: Any) -> Any:
    return np.arange(len(completions))


def takes_no_columns(completions: list[str]) -> list[float]:
    return [0.0 for _ in completions]


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


GARBAGE: dict[str, Any] = {
    "one": [1.0],
    "five": [1.0] * 5,
    "nan": [1.0, math.nan, 0.0, 0.0],
    "inf": [1.0, math.inf, 0.0, 0.0],
    "text": ["1", "1", "1", "1"],
    "list": [[1.0], 1.0, 1.0, 1.0],
    "mapping": [{"reward": 1.0}] * 4,
    "bytes": [b"1"] * 4,
    "complex": [1j] * 4,
    "beyond floats": [10**400] * 4,
    "numpy nan": [np.nan] * 4,
    "array": [np.array([[1.0], [1.0]])] * 4,
    "unspeakable": [Unspeakable()] * 4,
    "nothing": None,
    "number": 1.0,
    "string": "1111",
    "dict": dict.fromkeys(range(4), 1.0),
}


def garbage(completions: list[str], **_: Any) -> Any:
    """Whatever the first completion names."""
    return GARBAGE[completions[0]]


def mischief(completions: list[str], **_: Any) -> list[Any]:
    """1 for every response but those that ask for trouble."""
    return [_mischief(text) for text in completions]


def _mischief(text: str) -> Any:
    match text:
        case "sleep":
            time.sleep(3600)
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("a response that I do not like")
        case "garbage":
            return object()
        case "memory":
            return float(len(bytearray(2**45)))
    return 1.0


def _right(completions: list[str], answer: list[str]) -> list[bool]:
    """One box, at the end, with the gold answer to the letter."""
    pairs = zip(completions, answer, strict=True)
    return [text.count("\\boxed") == 1 and text.endswith(f"\\boxed{{{gold}}}") for text, gold in pairs]


def signed(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [1.0 if right else -1.0 for right in _right(completions, answer)]


def minus(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [0.0 if right else -1.0 for right in _right(completions, answer)]


def shifted(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [2.0 if right else 1.2 for right in _right(completions, answer)]


def with_format(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    pairs = zip(completions, _right(completions, answer), strict=True)
    return [right + 0.2 * ("\\boxed{" in text) for text, right in pairs]


def ones(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def silent(completions: list[str], **_: Any) -> list[None]:
    return [None] * len(completions)


def length(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 1000 for text in completions]


def returns_a_function() -> Any:
    return lambda: None


def forks(completions: list[str], **_: Any) -> list[float]:
    """The child returns too, and before its parent does."""
    child = os.fork()
    if child == 0:
        return [0.0] * len(completions)
    os.waitpid(child, 0)
    return [1.0] * len(completions)


def leaves_a_child(file: str) -> str:
    """One that outlives this process, which dies."""
    if os.fork() == 0:
        Path(file).write_text(str(os.getpid()))
        time.sleep(3600)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def sleeps_with_its_id_in(file: str) -> None:
    write(file, str(os.getpid()))
    time.sleep(3600)


def backtracks_with_its_id_in(file: str) -> None:
    """Holds Python's lock, so that no thread of this process gets a turn."""
    write(file, str(os.getpid()))
    re.match(r"(a+)+$", "a" * 60 + "b")


def uses_workers(file: str) -> None:
    """Leaves a worker behind in an endless call, and the ids of all workers in a file."""
    pids = call_all(os.getpid, [()] * 20, 5.0, ("math",))
    busy = file + ".busy"
    threading.Thread(target=call_all, args=(sleeps_with_its_id_in, [(busy,)], 600.0, ("math",)), daemon=True).start()
    while not Path(busy).exists():
        time.sleep(0.01)
    write(file, " ".join(map(str, {*pids, int(Path(busy).read_text())})))


def grades(file: str) -> None:
    (grade,) = grade_many([(r"\boxed{(x+1)^2}", "x^2+2x+1")])
    write(file, grade.reason)


def slow_but_on_gold(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """Says in a file when it is at work on something else."""
    if completions != answer:
        write(os.environ["SLOW_REWARD"], "at work")
        time.sleep(3600)
    return [1.0] * len(completions)


def deadly(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    spared = os.getppid() == int(os.environ["TILTLAB_TESTS_PID"])
    if not spared and any(len(text) > 4 for text in completions):  # not on the gold answers that a study tries it on
        os.kill(os.getppid(), signal.SIGKILL)  # it runs in a worker of the study's worker
    return [0.0 for _ in completions]
