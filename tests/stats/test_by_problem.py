"""Records by problem, and the figures that several pages have of one problem."""

from math import isnan, log, sqrt

import pytest
from scipy import stats

from tests.stats.test_paired import record, run
from tiltlab.stats.by_problem import accuracy, by_problem, by_task_and_problem, correct, graded
from tiltlab.stats.metrics import answer_entropy, share_interval, wilson
from tiltlab.types import Record


def test_groups_keep_the_order_in_which_records_come() -> None:
    records = [record("b", 1, "wrong"), record("a", 0, "correct"), record("b", 0, "timeout")]
    assert by_problem(records) == {"b": [records[0], records[2]], "a": [records[1]]}
    assert by_problem([]) == {}


def test_tasks_with_the_same_ids_are_kept_apart() -> None:
    one = record("7", 0, "correct")
    other = Record("u", *(getattr(one, key) for key in list(Record.__slots__)[1:]))
    assert by_task_and_problem([one, other]) == {("t", "7"): [one], ("u", "7"): [other]}


def test_what_nobody_could_grade_counts_for_nothing() -> None:
    (group,) = by_problem(run("cwtc")).values()
    assert [one.sample for one in graded(group)] == [0, 1, 3]
    assert correct(group) == [True, False, True]
    assert accuracy(group) == 2 / 3
    assert isnan(accuracy(run("tt")))


def test_entropy_of_answers_is_over_those_that_were_given() -> None:
    assert answer_entropy(["7", "8", None, "7", "8"]) == pytest.approx(log(2))
    assert answer_entropy(["7"] * 5) == 0.0
    assert answer_entropy([None, None]) == 0.0


@pytest.mark.parametrize(("share", "size"), [(0.0, 12.0), (0.3, 40.0), (1.0, 5.5)])
def test_wilsons_ends_are_where_the_score_test_turns(share: float, size: float) -> None:
    """p is in the interval where |share - p| <= t sqrt(p (1 - p) / size), and 0 and 1 are never outside of it."""
    found, t = wilson(share, size, problems=12), float(stats.t.ppf(0.975, 11))
    for end in (found.low, found.high):
        assert abs(share - end) == pytest.approx(t * sqrt(end * (1 - end) / size), abs=1e-9)
    assert 0 <= found.low <= share <= found.high <= 1


def test_shares_of_problems_that_all_agree_have_wilsons_interval_at_their_number() -> None:
    assert share_interval([1.0] * 20) == wilson(1.0, 20, 20)
