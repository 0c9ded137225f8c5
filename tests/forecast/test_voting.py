"""Answer power and votes, against every set of samples, and against distributions of answers that are known."""

from collections import Counter
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from tests.forecast.test_forecast import record
from tiltlab.errors import UserError
from tiltlab.forecast.answers import agreement, vote_covariances, votes_of
from tiltlab.forecast.voting import answer_path, vote_path
from tiltlab.stats.by_problem import by_problem
from tiltlab.types import Record


def given(problem: str, answer: str | None, tokens: int = 3) -> Record:
    """A response with this answer; 1 is right."""
    one = replace(record(problem, float("nan"), answer == "1", tokens), answer=answer)
    return one if answer is not None else replace(one, reason="no_answer")


def some_records(seed: int, problems: int = 6, n: int = 7) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        given(str(p), [None, "1", "2", "3"][rng.integers(4)], int(rng.integers(1, 9)))
        for p in range(problems)
        for _ in range(n + (p == 0))
    ]


def powered(group: list[Record], g: float) -> np.ndarray:
    """Accuracy, length, KL and agreement of answer power with the samples' own shares."""
    counts = Counter(one.answer for one in group if one.answer is not None)
    total = sum((count / len(group)) ** g for count in counts.values())
    found = np.array([0.0, 0.0, -np.log(total), 0.0])
    for answer, count in counts.items():
        share = count / len(group)
        chance = share**g / total
        length = np.mean([one.tokens for one in group if one.answer == answer])
        found += [chance * (answer == "1"), chance * length, chance * (g - 1) * np.log(share), chance**2]
    return found


def test_answer_power_is_the_jackknife_of_what_the_samples_say() -> None:
    """Leaving each sample out in turn, its answer's mean length kept."""
    records = [replace(one, tokens=3 + len(one.answer or "") * 2) for one in some_records(0, n=12)]
    votes = votes_of(records)
    path = answer_path(votes, (2, 3.5))
    assert path.gs == (1, 2, 3.5)
    for p, group in enumerate(by_problem(records).values()):
        for i, g in enumerate(path.gs[1:], start=1):
            n = len(group)
            less_one = [powered([*group[:j], *group[j + 1 :]], g) for j in range(n)]
            exact = n * powered(group, g) - (n - 1) * np.mean(less_one, axis=0)
            assert path.figures(i).corrected[p] == pytest.approx(exact)
        right = [one.reason == "correct" for one in group]
        assert path.accuracy_GP[0, p] == pytest.approx(np.mean(right))
        assert path.length_GP[0, p] == pytest.approx(np.mean([one.tokens for one in group]))
        assert path.kl_GP[0, p] == pytest.approx(0, abs=1e-12)


def test_a_vote_is_the_average_over_all_draws_of_k_samples() -> None:
    """Ties to the answer that comes first, responses without an answer aside; the first response that has it."""
    records = some_records(1)
    path = vote_path(votes_of(records))
    assert path.ks == (1, 2, 4, 7)
    for p, group in enumerate(by_problem(records).values()):
        for i, k in enumerate(path.ks[:3]):
            exact = []
            for drawn in permutations(group, k):
                votes = Counter(one.answer for one in drawn if one.answer is not None)
                chosen = next((one for one in drawn if votes and one.answer == votes.most_common(1)[0][0]), drawn[0])
                exact.append([chosen.answer == "1", chosen.tokens])
            assert [path.accuracy_KP[i, p], path.length_KP[i, p]] == pytest.approx(np.mean(exact, axis=0))


def drawn(chances: list[float], n: int, problems: int, seed: int) -> list[Record]:
    """Answers 1, 2, ... with these chances; the rest of the mass gives none."""
    rng = np.random.default_rng(seed)
    answers = [*map(str, range(1, len(chances) + 1)), None]
    chosen = rng.choice(len(answers), (problems, n), p=[*chances, 1 - sum(chances)])
    return [given(str(p), answers[a]) for p, row in enumerate(chosen.tolist()) for a in row]


def test_agreement_and_kl_of_answer_power_are_those_of_its_distribution() -> None:
    chances = np.array([0.3, 0.4, 0.2])
    path = answer_path(votes_of(drawn(chances.tolist(), 64, 2000, 0)), (2, 3))
    for i, g in enumerate(path.gs[1:], start=1):
        distribution = chances**g / (chances**g).sum()
        for found_P, exact in (
            (path.accuracy_GP[i], distribution[0]),
            (path.kl_GP[i], (distribution * np.log(distribution / chances)).sum()),
            (path.agreement_GP[i], (distribution**2).sum()),
        ):
            assert np.mean(found_P) == pytest.approx(exact, abs=0.012)
    assert np.mean(path.agreement_GP[0]) == pytest.approx((chances**2).sum(), abs=0.01)


def test_agreement_of_votes_is_that_of_two_votes_of_other_samples() -> None:
    records = drawn([0.3, 0.4, 0.2], 16, 300, 0)
    path = vote_path(votes_of(records), (3, 9))
    more = vote_path(votes_of(drawn([0.3, 0.4, 0.2], 64, 300, 1)), (3,))
    exact = 0.3 * 0.3  # two votes of one: what samples of either kind must agree with at k = 1
    assert np.mean(path.agreement_KP[0]) == pytest.approx(0.29, abs=0.02)
    assert exact < np.mean(path.agreement_KP[1]) == pytest.approx(np.mean(more.agreement_KP[1]), abs=0.03)
    assert np.isnan(path.agreement_KP[2]).all()
    assert np.mean(list(agreement(records).values())) == pytest.approx(0.29, abs=0.02)


def test_what_cannot_be_voted_on_is_refused_by_name() -> None:
    essay = "the king was tired of war and so he went home at last"
    with pytest.raises(UserError, match=r"'t'.*free text"):
        votes_of([given("a", f"{i} {essay}") for i in range(8)])
    with pytest.raises(UserError, match=r"'t'.*no response|no response.*'t'"):
        votes_of([given("a", None) for _ in range(8)])
    with pytest.raises(UserError, match="no problem"):
        votes_of([given("a", "1")])
    votes_of([given("a", r"\left( \frac{1}{2}, x + y + z + u + v + w + a + b \right)") for _ in range(8)])


def test_responses_without_a_grade_do_not_vote() -> None:
    records = some_records(2)
    more = [replace(given("0", "3"), reason="timeout", reward=float("nan"))] * 9
    assert (vote_path(votes_of([*records, *more])).accuracy_KP == vote_path(votes_of(records)).accuracy_KP).all()


def test_the_kl_of_votes_is_corrected_and_withheld_where_eight_samples_a_vote_are_not_there() -> None:
    """Answers .3, .4, .2, none .1; three votes: the majority, or the first where all differ."""
    share = np.array([0.3, 0.4, 0.2, 0.1])
    won = np.zeros(4)
    for three in product(range(4), repeat=3):
        votes = Counter(a for a in three if a < 3)
        first = next((a for a in three if votes and a == votes.most_common(1)[0][0]), three[0])
        won[first] += share[list(three)].prod()
    exact = (won * np.log(won / share)).sum()
    path = vote_path(votes_of(drawn([0.3, 0.4, 0.2], 32, 2000, 0)), (3, 5))
    error = np.std(path.kl_KP[1]) / np.sqrt(2000)
    assert np.mean(path.kl_KP[1]) == pytest.approx(exact, abs=3.5 * error)
    assert np.mean(path.kl_KP[1] - path.moved_KP[1]) > exact + 2.5 * error
    assert np.isnan(path.kl_KP[2]).all()


def test_the_slope_of_answer_power_is_the_covariance_with_log_p_of_the_answer() -> None:
    chances = np.array([0.3, 0.4, 0.2]) / 0.9
    exact = chances[0] * (np.log(chances[0]) - (chances * np.log(chances)).sum())
    for n in (8, 32):
        found = vote_covariances(votes_of(drawn([0.3, 0.4, 0.2], n, 4000, 0)))
        assert np.nanmean(found) == pytest.approx(exact, abs=3.5 * np.nanstd(found) / np.sqrt(4000) + 0.002)
    lone = vote_covariances(votes_of([given("a", "1"), *[given("a", None)] * 5]))
    assert np.isnan(lone).all()
