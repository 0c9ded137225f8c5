"""The rank path, against every set of k samples, and against distributions that can be summed."""

from itertools import combinations

import numpy as np
import pytest

from tests.forecast.test_forecast import record
from tiltlab.errors import UserError
from tiltlab.forecast.ranks import matched, rank_path, top_shares
from tiltlab.forecast.weighted_samples import from_records
from tiltlab.stats.by_problem import by_problem
from tiltlab.types import Record


def some_records(seed: int, problems: int = 6, n: int = 7) -> list[Record]:
    """Many ties in log p, and one sample more of the first problem."""
    rng = np.random.default_rng(seed)
    return [
        record(str(p), -float(rng.integers(1, 5)), bool(rng.random() < 0.4), int(rng.integers(1, 9)))
        for p in range(problems)
        for _ in range(n + (p == 0))
    ]


@pytest.mark.parametrize("per_token", [False, True])
def test_a_path_is_the_average_over_all_sets_of_k_samples_ties_shared(per_token: bool) -> None:
    records = some_records(0)
    path = rank_path(from_records(records), per_token=per_token)
    assert path.ks == (1, 2, 4, 7)

    def key(one: Record) -> float:
        return round(one.logp / (one.tokens if per_token else 1), 9)

    for p, group in enumerate(by_problem(records).values()):
        for i, k in enumerate(path.ks):
            sums = []
            for chosen in combinations(group, k):
                best = [one for one in chosen if key(one) == max(map(key, chosen))]
                sums.append(np.mean([[one.reason == "correct", one.tokens, one.logp] for one in best], axis=0))
            found = [path.accuracy_KP[i, p], path.length_KP[i, p], path.logp_KP[i, p]]
            assert found == pytest.approx(np.mean(sums, axis=0))


def test_problems_with_few_samples_are_left_out_and_unused_samples_do_not_count() -> None:
    records = some_records(1)
    more = [record("0", 3.0, True, complete=False), record("few", -1.0, True), record("1", 5.0, True, reason="timeout")]
    plain, mixed = rank_path(from_records(records)), rank_path(from_records([*records, *more]))
    assert (mixed.problems, mixed.left_out) == (plain.problems, 1)
    assert (mixed.accuracy_KP == plain.accuracy_KP).all()
    with pytest.raises(UserError, match="no problem"):
        rank_path(from_records(more))


def test_only_samples_of_the_base_have_a_path() -> None:
    records = some_records(2)
    with pytest.raises(ValueError, match="base itself"):
        rank_path(from_records(records, [-1.5] * len(records)))


def test_no_preference_for_likelier_responses_beats_the_best_top_share() -> None:
    samples = from_records(some_records(3))
    best = top_shares(samples, [i / 7 for i in range(1, 8)]).max(0)
    assert (rank_path(samples).accuracy_KP[:, 1:] <= best[1:] + 1e-12).all()


def planted(k: int, problems: int, n: int, seed: int, spread: float = 25.0) -> tuple[list[Record], dict[str, float]]:
    """Base samples whose log p spreads over so many nats, right ones somewhat likelier; and mean log p of a model that
    is the likeliest of k. Level and spread differ from problem to problem."""
    rng = np.random.default_rng(seed)
    records, tuned = [], {}
    for p in range(problems):
        level, width = -rng.uniform(100, 300), spread * rng.uniform(0.7, 1.3)
        right = rng.random(2 * n * k) < 0.3
        logp = level + width * (rng.normal(size=len(right)) + 0.5 * right)
        records += [record(str(p), *pair, 100) for pair in zip(logp[:n].tolist(), right[:n].tolist(), strict=True)]
        tuned[str(p)] = float(logp[n : n + 16 * k].reshape(-1, k).max(1).mean())
    return records, tuned


def test_a_model_that_is_the_likeliest_of_8_is_met_at_8_whatever_the_spread() -> None:
    held = 0
    for seed in range(20):
        records, tuned = planted(8, 60, 32, seed)
        path = rank_path(from_records(records))
        found = matched(path, tuned)
        assert found is not None
        assert found.reached
        assert 5 < found.k < 13
        assert found.needed is None
        truth = 0.4594  # of the likeliest of 8, summed numerically
        held += found.accuracy.low < truth < found.accuracy.high
    assert held >= 17


def test_absurd_responses_of_a_few_problems_move_no_match() -> None:
    records, tuned = planted(8, 60, 32, 0)
    path = rank_path(from_records(records))
    plain = matched(path, tuned)
    absurd = matched(path, tuned | {"0": -1e5, "1": -1e5})
    assert plain is not None
    assert absurd is not None
    assert absurd.k == pytest.approx(plain.k, rel=0.2)


def test_likelier_than_the_best_of_n_is_out_of_reach_and_the_needed_samples_are_guessed() -> None:
    records, tuned = planted(512, 60, 32, 0)
    found = matched(rank_path(from_records(records)), tuned)
    assert found is not None
    assert not found.reached
    assert found.k == pytest.approx(32)
    assert found.lead < 0
    assert found.needed is not None
    assert 150 < found.needed < 2000
