"""Paired comparisons against enumeration, and intervals against simulated truths."""

from itertools import product
from math import comb, isnan

import numpy as np
import pytest

from tests.tolerances import share_tolerance
from tiltlab.stats.metrics import Interval, share_interval
from tiltlab.stats.paired import by_length, compare, difference_interval, mcnemar, never_limit
from tiltlab.types import Reason, Record


def record(problem: str, sample: int, reason: Reason, tokens: int = 5) -> Record:
    answer = {"correct": "7", "wrong": "8"}.get(reason)
    return Record("t", problem, sample, "", answer, float(reason == "correct"), reason, tokens, True, -1.0, -1.0)


def run(*rows: str) -> list[Record]:
    """One row of grades a problem: c correct, w wrong, t timeout."""
    reasons: dict[str, Reason] = {"c": "correct", "w": "wrong", "t": "timeout"}
    return [record(str(p), i, reasons[mark]) for p, row in enumerate(rows) for i, mark in enumerate(row)]


def test_problems_are_matched_and_counted_once() -> None:
    found = compare(run("cccc", "wwww", "cw"), run("wwww", "ccww", "cwt", "c"))
    assert (found.problems, found.unmatched, found.ungraded) == (3, 1, 1)
    assert found.difference.value == pytest.approx((-1 + 0.5 + 0) / 3)
    assert (found.a_only, found.b_only) == (1, 0)  # two against two is no majority
    with pytest.raises(ValueError, match="in common"):
        compare(run("t"), run("c"))


@pytest.mark.parametrize("pairs", [(0, 0), (1, 0), (3, 1), (5, 5), (2, 9)])
def test_mcnemar_is_the_chance_of_a_split_at_least_so_rare(pairs: tuple[int, int]) -> None:
    n, k = sum(pairs), pairs[0]
    splits = [sum(outcome) for outcome in product((0, 1), repeat=n)]
    rare = sum(comb(n, split) <= comb(n, k) for split in splits) / len(splits)
    assert mcnemar(*pairs) == pytest.approx(rare)


def test_where_nothing_differs_something_may_still() -> None:
    found = difference_interval(np.zeros(100))
    assert (found.low, found.high) == (-never_limit(100), never_limit(100))
    assert never_limit(100) == pytest.approx(0.0295, abs=1e-4)
    assert (1 - never_limit(100)) ** 100 == pytest.approx(0.05)
    assert never_limit(0) == 1.0


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    sets, problems, n = 600, 60, 4
    slack = share_tolerance(0.95, sets)
    truths = generator.beta(0.5, 0.5, (sets, problems))
    first = generator.binomial(n, truths) / n
    second = generator.binomial(n, truths + 0.2 * (1 - truths)) / n
    assert abs(covered([share_interval(row) for row in first], 0.5) - 0.95) < slack
    differences = [difference_interval(row, i, resamples=399) for i, row in enumerate(second - first)]
    assert abs(covered(differences, 0.1) - 0.95) < slack


def test_accuracy_by_length() -> None:
    records = [record(str(i), 0, "correct" if i < 50 else "wrong", tokens=i) for i in range(100)]
    strata = by_length([*records, record("x", 0, "timeout", 3)])
    assert [(s.shortest, s.longest, s.responses, s.accuracy.value) for s in strata] == [
        (0, 24, 25, 1.0),
        (25, 49, 25, 1.0),
        (50, 74, 25, 0.0),
        (75, 99, 25, 0.0),
    ]
    assert len(by_length([record("a", i, "wrong", 5) for i in range(9)])) == 1
    assert by_length([]) == []
    assert isnan(by_length([record("a", 0, "correct")])[0].accuracy.low)
