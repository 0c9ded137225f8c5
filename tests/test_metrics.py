import math
from itertools import combinations, permutations

import numpy as np
import pytest

from tiltlab.metrics import averages, maj_at_k, mean_interval, pass_at_k, share_interval
from tiltlab.types import Record


@pytest.mark.parametrize(("n", "correct"), [(5, 0), (5, 2), (6, 5), (4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, correct: int) -> None:
    samples = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
        subsets = list(combinations(samples, k))
        assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_more_samples_than_there_are_say_nothing() -> None:
    assert math.isnan(pass_at_k(4, 1, 5))
    assert math.isnan(maj_at_k(["a"], [True], 2))


def votes_right(drawn: tuple[int, ...], answers: list[str | None], correct: list[bool]) -> bool:
    """The vote as it is defined: most frequent answer, ties to the first seen; silence casts no vote."""
    given = [answers[i] for i in drawn if answers[i] is not None]
    if not given:
        return False
    winner = max(dict.fromkeys(given), key=given.count)  # dict keeps the order of first appearance, max takes the first
    return any(correct[i] for i in drawn if answers[i] == winner)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["1", "1", "2", "2", "3"], {"1"}),
        (["1", "2", "3", "4", "5"], {"4"}),
        (["1", "1", None, None, "2"], {"2"}),
        ([None, None, None, "7", "8"], {"7"}),
        (["1", "1", "1", "2", "2", "2"], {"2"}),
        (["1", "01", "2", "2", "3", "1"], {"1", "01"}),  # two ways to write the right answer
        ([None] * 4, set()),
    ],
)
def test_maj_at_k_is_the_share_of_ordered_draws_whose_vote_is_right(answers: list[str | None], right: set[str]) -> None:
    correct = [answer in right for answer in answers]
    for k in range(1, len(answers) + 1):
        draws = list(permutations(range(len(answers)), k))
        share = sum(votes_right(draw, answers, correct) for draw in draws) / len(draws)
        assert maj_at_k(answers, correct, k) == pytest.approx(share)


@pytest.mark.parametrize("problems", [30, 200])
@pytest.mark.parametrize("beta", [(1, 1), (2, 8), (0.3, 0.3)])
def test_intervals_over_problems_cover(problems: int, beta: tuple[float, float]) -> None:
    """2000 data sets of 16 samples a problem: 95 % intervals hold the truth in 93 to 97 % (4 standard errors: 2 %)."""
    rng = np.random.default_rng(0)
    truth = beta[0] / sum(beta)
    inside = np.zeros(2)
    for _ in range(2000):
        shares = rng.binomial(16, rng.beta(*beta, size=problems)) / 16
        for i, interval in enumerate((share_interval(shares), mean_interval(shares))):
            inside[i] += interval.low <= truth <= interval.high
    assert (inside / 2000 > 0.93).all()
    assert (inside / 2000 < 0.97).all()


def test_nothing_is_ever_called_certain() -> None:
    """All right on 100 problems bounds the error rate near 3 %, not at 0."""
    interval = share_interval([1.0] * 100)
    assert interval.high == 1.0
    assert 0.95 < interval.low < 0.98
    assert math.isnan(mean_interval([0.5]).low)
    assert math.isnan(mean_interval([]).value)


def test_problems_without_a_value_are_left_out() -> None:
    assert mean_interval([1.0, math.nan, 3.0]).value == 2.0


def record(reward: float, **other: object) -> Record:
    fields = {
        "task": "t", "problem": "p", "sample": 0, "text": "", "answer": None, "reward": reward, "tokens": 4,
        "reason": "correct" if reward == 1 else "error" if math.isnan(reward) else "wrong",
        "complete": True, "logp": -1.0, "ref_logp": -3.0,
    }  # fmt: skip
    return Record(**(fields | other))  # type: ignore[arg-type]


def test_averages_leave_out_what_could_not_be_graded_and_what_was_cut_off() -> None:
    found = averages([record(1.0), record(0.0), record(math.nan), record(0.0, complete=False, logp=-9.0, tokens=8)])
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["truncated"] == 0.25
    assert found["length"] == 5
    assert found["kl"] == 2
    assert found["logp"] == -1
