"""Records by the problem that they answer, and what the samples of one problem say. Pure.

Left out on purpose: intervals over problems (metrics.py).
"""

from collections.abc import Iterable, Sequence

from tiltlab.types import UNKNOWN, Record


def by_problem(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The samples of each problem by its id, problems and samples in the order in which they come.

    records: of one task, for another may have the same ids.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.problem, []).append(record)
    return groups


def by_task_and_problem(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """The samples of each problem by task and id, for records of several tasks; else as `by_problem`."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.task, record.problem), []).append(record)
    return groups


def graded(records: Iterable[Record]) -> list[Record]:
    """Those whose grade is known: the others count for nothing."""
    return [record for record in records if record.reason not in UNKNOWN]


def correct(records: Iterable[Record]) -> list[bool]:
    """Which of the graded ones are right."""
    return [record.reason == "correct" for record in graded(records)]


def accuracy(samples: Sequence[Record]) -> float:
    """Share of right ones among those graded, in [0, 1]; NaN where none is."""
    right = correct(samples)
    return sum(right) / len(right) if right else float("nan")
