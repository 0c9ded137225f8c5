import math
import random
import time
from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest

from tiltlab.stats.metrics import averages, maj_at_k, mean_interval, pass_at_k, share_interval
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
    """The vote as it is defined: most frequent answer, ties to the first seen; a response without an answer casts no
    vote."""
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


def counted(answers: list[str | None], right: set[str], k: int) -> float:
    """maj@k by counting draws in whole numbers: ways[t, v] of v votes for others, t of them level with `mine`."""
    votes = Counter(answer for answer in answers if answer is not None)
    unanswered = len(answers) - sum(votes.values())
    won = Fraction(0)
    for answer in right & votes.keys():
        for mine in range(1, min(votes[answer], k) + 1):
            ways = Counter({(0, v): comb(unanswered, v) for v in range(k + 1)})
            for count in (votes[other] for other in votes if other != answer):
                more: Counter[tuple[int, int]] = Counter()
                for (level, v), number in ways.items():
                    for drawn in range(min(count, mine, k - v) + 1):
                        more[level + (drawn == mine), v + drawn] += number * comb(count, drawn)
                ways = more
            level_ways = ((level, number) for (level, v), number in ways.items() if v == k - mine)
            won += comb(votes[answer], mine) * sum((Fraction(n, 1 + level) for level, n in level_ways), Fraction(0))
    return float(won / comb(len(answers), k))


@pytest.mark.parametrize("n", [7, 16, 33])
def test_maj_at_k_equals_counting_draws_in_whole_numbers(n: int) -> None:
    rng = random.Random(n)
    for kinds in (1, 2, 3, 5, n):
        for unanswered in (0, 2):
            answers = [rng.choice([*map(str, range(kinds)), *[None] * unanswered]) for _ in range(n)]
            right = set(rng.sample(list(map(str, range(kinds))), min(2, kinds)))
            for k in {1, 2, n // 2, n - 1, n}:
                found = maj_at_k(answers, [answer in right for answer in answers], k)
                assert found == pytest.approx(counted(answers, right, k), abs=1e-12)
                assert 0 <= found <= 1


def test_figures_of_thousands_of_samples() -> None:
    """Whole numbers of draws have hundreds of digits there, which no float holds."""
    answers, right = ["7"] * 700 + ["8"] * 500, [True] * 700 + [False] * 500
    less = sum(comb(700, i) * comb(500, 600 - i) for i in range(100, 300)) + comb(700, 300) * comb(500, 300) // 2
    assert maj_at_k(answers, right, 600) == pytest.approx(1 - float(Fraction(less, comb(1200, 600))), abs=1e-12)
    assert pass_at_k(5000, 1, 2500) == 0.5
    assert pass_at_k(5000, 2500, 2500) == 1.0
    for n in (1030, 5000):
        many = [str(i) for i in range(n)]
        for k in (1, 8, 512, n):
            assert maj_at_k(many, [i == 5 for i in range(n)], k) == pytest.approx(1 / n, abs=1e-12)
            assert maj_at_k(["7"] * (n - 1) + ["8"], [True] * (n - 1) + [False], max(k, 3)) == 1.0
            assert maj_at_k(["7"] * n, [True] * n, k) == 1.0
            halves = ["7"] * (n // 2) + ["8"] * (n // 2)
            assert maj_at_k(halves, [answer == "7" for answer in halves], k) == 0.5


def test_many_answers_of_thousands_of_samples_take_no_minutes() -> None:
    """The old arithmetic took minutes for 1000 samples with 250 answers. The bound is for machines that hang."""
    rng = random.Random(0)
    wrong = rng.choices([str(i) for i in range(400)], [1 / (i + 1) for i in range(400)], k=1400)
    answers = ["right"] * 600 + wrong
    start = time.monotonic()
    shares = [maj_at_k(answers, [answer == "right" for answer in answers], 2**i) for i in range(11)]
    assert time.monotonic() - start < 60
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.3, abs=1e-12)


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
