"""What n samples forecast, against figures summed over all responses of random languages.

Simulations share benchmarks/forecast_coverage.py, which does the same at length.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from benchmarks.forecast_coverage import Population, held, population, simulate

from tests.forecast.closed_form import tilted_by_binary_reward
from tiltlab.errors import UserError
from tiltlab.forecast.forecast import Forecast, Point, covariance, covariances, forecast
from tiltlab.forecast.frontier import least_kl, reward_path, sharpening_path
from tiltlab.forecast.importance import estimate
from tiltlab.forecast.weighted_samples import WeightedSamples, from_records
from tiltlab.models.table import TableLanguage
from tiltlab.stats.metrics import Interval
from tiltlab.types import Reason, Record


@pytest.fixture(scope="module")
def wide() -> Population:
    return population("wide", 300)


def record(problem: str, logp: float, right: bool, tokens: int = 3, **changes: object) -> Record:
    reason: Reason = "correct" if right else "wrong"
    plain = Record("t", problem, 0, "", None, float(right), reason, tokens, True, logp, logp)
    return replace(plain, **changes)  # type: ignore[arg-type]


def point_at(found: Forecast, alpha: float, beta: float | None = None) -> Point:
    return next(point for point in found.points if (point.alpha, point.beta) == (alpha, beta))


def coin(rights: Sequence[int], n: int) -> WeightedSamples:
    """Problems whose responses are all equally likely, with so many right ones among n samples."""
    return from_records([record(str(p), -2.0, i < right) for p, right in enumerate(rights) for i in range(n)])


# Against enumeration


@pytest.mark.slow
def test_intervals_hold_the_exact_figures_in_95_of_100_data_sets(wide: Population) -> None:
    """200 data sets; 95 % stays within 3.3 binomial standard errors (1.5 %) in all but one case of 1000."""
    sets, tried = 200, {(1.5, None), (2.0, None), (1.0, 0.5), (1.5, 1.0)}
    hits: dict[tuple[float, float | None], list[list[bool]]] = {key: [] for key in tried}
    for _, point in simulate(wide, 40, 48, sets, (1.5, 2.0), (1.0, 0.5)):
        key = (point.alpha, point.beta)
        if key in tried and point.supported:
            hits[key].append(held(point, wide.exact(*key)))
    for key, found in hits.items():
        assert len(found) > 0.9 * sets, key
        assert (np.abs(np.mean(found, 0) - 0.95) < 0.05).all(), (key, np.mean(found, 0))


def test_the_jackknife_takes_the_bias_away_that_would_spoil_them(wide: Population) -> None:
    samples = wide.samples(np.random.default_rng(0), 6000, 32)
    found = estimate(samples, 1.0, 1 / 0.3)
    exact = np.array(wide.exact(1.0, 0.3))
    error = found.corrected.std(0) / np.sqrt(6000)
    assert ((found.plain.mean(0) - exact) / error < -4)[[0, 2]].all()
    # in standard errors of 100 problems, eight times those of 6000
    assert (np.abs(found.corrected.mean(0) - exact) / error / np.sqrt(60) < 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n"), [("wide", 16), ("rare", 32), ("peaked", 32)])
def test_no_number_where_the_effective_sample_size_is_too_small(kind: str, n: int) -> None:
    people = population(kind, 300)
    hopeless = 0
    for chosen, point in simulate(people, 60, n, 40, (0.5, 1.0, 2.0, 6.0), (0.3, 0.2, 0.1)):
        if n / people.load(point.alpha, point.beta)[chosen].mean() < 5:
            hopeless += 1
            assert not point.supported, (point.alpha, point.beta)
            assert point.accuracy is point.length is point.kl is None
            assert point.why
    assert hopeless > 100


def test_the_harmonic_ess_is_the_exact_one(wide: Population) -> None:
    """Where the plain one is too large by a third, since heavy responses were not all seen."""
    found = estimate(wide.samples(np.random.default_rng(0), 3000, 32), 0.5, 0.0)
    exact = 32 / wide.load(0.5, None).mean()
    assert 1 / np.mean(1 / found.ess) > 1.2 * exact
    assert found.ess_harmonic == pytest.approx(exact, rel=0.15)


# What may hide


def test_withheld_where_problems_nobody_solved_may_have_solutions() -> None:
    """Half of the problems have one right response in 1000, hardly seen in 32 samples; e^10 would make it the rule."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        rights = rng.binomial(32, np.repeat([0.5, 0.001], 40))
        found = forecast(coin(rights.tolist(), 32), [1.0], [1.0, 0.1])
        assert point_at(found, 1.0, 1.0).supported
        assert not point_at(found, 1.0, 0.1).supported


def test_all_wrong_is_no_proof_that_a_reward_has_nothing_to_find() -> None:
    found = forecast(coin([0] * 100, 32), [1.0, 4.0], [2.0, 0.1])
    mild, strong = point_at(found, 1.0, 2.0), point_at(found, 1.0, 0.1)
    assert mild.accuracy is not None
    assert mild.accuracy.value == 0
    assert 0.01 < mild.accuracy.high < 0.06
    assert strong.why == "better responses than any seen could change it"
    assert strong.samples_needed is not None
    assert strong.samples_needed > 32
    assert point_at(found, 4.0).accuracy is not None  # all alike: p^4 is p


def test_a_path_ends_where_it_is_first_withheld(wide: Population) -> None:
    found = forecast(wide.samples(np.random.default_rng(1), 80, 32), betas=[2.0, 1.0, 0.5, 0.2, 0.1])
    for alpha in {point.alpha for point in found.points}:
        supported = [point.supported for point in found.points if point.alpha == alpha]
        assert supported == sorted(supported, reverse=True)
    along = [point.supported for point in found.points if point.beta is None and point.alpha >= 1]
    assert along == sorted(along, reverse=True)
    assert True in along
    assert False in along


def test_what_is_withheld_says_how_many_samples_would_do_and_they_do(wide: Population) -> None:
    """Twice as many as it says at least, since that is a lower bound."""
    rng = np.random.default_rng(2)
    withheld = point_at(forecast(wide.samples(rng, 60, 16), [2.0], []), 2.0)
    assert not withheld.supported
    assert withheld.samples_needed is not None
    assert withheld.samples_needed > 16
    assert point_at(forecast(wide.samples(rng, 60, 2 * withheld.samples_needed), [2.0], []), 2.0).supported


def test_few_problems_give_no_interval() -> None:
    found = forecast(coin([1, 2, 3], 32), [1.0], [1.0])
    assert {point.why for point in found.points} == {"fewer than 10 problems"}


# Closed forms


@pytest.mark.parametrize("beta", [2.0, 0.5, 0.1])
def test_weights_of_a_binary_reward_are_the_closed_form(beta: float) -> None:
    rights = [0, 1, 7, 16, 31, 32]
    found = estimate(coin(rights, 32), 1.0, 1 / beta).plain
    closed = [tilted_by_binary_reward(right / 32, beta) for right in rights]
    assert found[:, [0, 2]] == pytest.approx(np.array(closed), abs=1e-7)
    assert closed[0] == (0.0, 0.0)
    assert closed[-1] == pytest.approx((1.0, 0.0), abs=1e-12)


def test_the_closed_form_is_the_enumerated_one(wide: Population) -> None:
    accuracy = (np.exp(wide.logp) * wide.correct).sum(1)
    closed = np.mean([tilted_by_binary_reward(a, 0.3) for a in accuracy], 0)
    right, _, kl = wide.exact(1.0, 0.3)
    assert closed == pytest.approx([right, kl])


def test_the_slope_is_the_derivative_at_alpha_1() -> None:
    people = population("likely", 300)
    slope = (people.exact(1.001, None)[0] - people.exact(0.999, None)[0]) / 0.002
    samples = people.samples(np.random.default_rng(0), 4000, 8)
    each = covariances(samples)
    assert each.mean() == pytest.approx(slope, abs=4 * each.std() / np.sqrt(4000))
    found = covariance(people.samples(np.random.default_rng(1), 100, 32))
    assert 0 < found.low < slope < found.high


def test_pass_at_k_is_that_of_the_tilted_distribution(wide: Population) -> None:
    distribution = np.exp(1.5 * wide.logp)
    exact = float(np.mean(1 - (1 - (distribution * wide.correct).sum(1) / distribution.sum(1)) ** 4))
    found = point_at(forecast(wide.samples(np.random.default_rng(0), 200, 64), [1.5], [], ks=[4]), 1.5).pass_at[4]
    assert found is not None
    assert found.low < exact < found.high
    assert found.high - found.low < 0.15


# Other proposals


def tempered_languages(temperatures: Sequence[float], problems: int) -> list[TableLanguage]:
    base = TableLanguage.random(5, prompts=[str(i) for i in range(problems)])
    return [TableLanguage(base.logits.detach() / t, base.prompts) for t in temperatures]


def mixed(languages: list[TableLanguage], counts: Sequence[int], seed: int) -> WeightedSamples:
    """So many samples of each language, the first of which is the base, with log q under each. "a" first is right."""
    groups = [
        language.generate(language.prompts, n=n, max_tokens=6, seed=seed + k)
        for k, (language, n) in enumerate(zip(languages, counts, strict=True))
    ]
    together = [[one for part in parts for one in part] for parts in zip(*groups, strict=True)]
    with torch.no_grad():
        log_q = np.stack([language.logprobs(language.prompts, together).total_PG.flatten() for language in languages])
    records = [
        record(problem, float(logp), rollout.text.startswith("a"), len(rollout.tokens))
        for (problem, rollout), logp in zip(
            ((p, r) for p, group in zip(languages[0].prompts, together, strict=True) for r in group),
            log_q[0].tolist(),
            strict=True,
        )
    ]
    who = np.tile(np.repeat(np.arange(len(languages)), counts), len(together))
    return from_records(records, log_q.astype(float), who)


def exact_of(language: TableLanguage, alpha: float) -> np.ndarray:
    """Accuracy, length and KL of p^alpha, [P, 3]."""
    logp = language.sequence_logprobs().detach().double()
    distribution = (alpha * logp).softmax(-1)
    rollouts = language.enumerated()[0]
    right = torch.tensor([float(r.text.startswith("a")) for r in rollouts], dtype=torch.float64)
    length = torch.tensor([float(len(r.tokens)) for r in rollouts], dtype=torch.float64)
    kl = (distribution * (alpha - 1) * logp).sum(-1) - (alpha * logp).logsumexp(-1)
    return torch.stack([distribution @ right, distribution @ length, kl], -1).numpy()


def test_several_temperatures_are_combined_without_bias() -> None:
    """300 problems, with weights by the balance heuristic, against enumeration of the same problems."""
    languages = tempered_languages([1.0, 0.6], 300)
    samples = mixed(languages, [24, 24], seed=3)
    for alpha in (1.0, 2.0, 3.0):
        error = estimate(samples, alpha, 0.0).corrected - exact_of(languages[0], alpha)
        standard = error.std(0) / np.sqrt(len(error))
        assert (np.abs(error.mean(0)) < 3.5 * standard).all(), (alpha, error.mean(0) / standard)


def test_particles_serve_for_other_distributions(wide: Population) -> None:
    """Samples from p^2, as SMC gives them, forecast p^3 and the base itself."""
    rng = np.random.default_rng(0)
    log_z = np.logaddexp.reduce(2 * wide.logp, axis=1)[:, None]
    samples = replace(wide, logp=2 * wide.logp - log_z).samples(rng, 200, 48)
    logp = (samples.logp + np.log(np.exp(samples.logp).mean())) / 2  # up to a constant a problem
    particles = replace(samples, logp=logp, log_q=2 * logp)
    for alpha in (1.5, 3.0):
        found = estimate(particles, alpha, 0.0).corrected[:, :2]  # Z of the base is not told by draws from p^2
        error = found.std(0) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - wide.exact(alpha, None)[:2]) < 3.5 * error).all(), alpha


def test_copies_of_one_population_are_one_sample() -> None:
    rng = np.random.default_rng(0)
    once = [record(str(p), -float(rng.random()), bool(rng.random() < 0.5)) for p in range(20) for _ in range(30)]
    twice = [copy for one in once for copy in (one, one)]
    single = forecast(from_records(once), [2.0], [0.5])
    double = forecast(from_records(twice, unit=np.repeat(np.arange(len(once)), 2)), [2.0], [0.5])
    for left, right in zip(single.points, double.points, strict=True):
        assert left.ess == pytest.approx(right.ess)
        assert left.accuracy == pytest.approx(right.accuracy)


# Records


def test_what_cannot_be_weighed_is_left_out_and_counted() -> None:
    rng = np.random.default_rng(0)
    good = [
        record(str(p), -1 - rng.random(), bool(rng.random() < 0.5), int(rng.integers(2, 5)))
        for p in range(12)
        for _ in range(24)
    ]
    useless = [
        record("0", -0.1, False, complete=False),
        record("1", -0.1, False, reason="timeout", reward=float("nan")),
        record("2", -0.1, True, reward=float("nan")),
        record("lonely", -0.1, True),
    ]
    plain, mixed_in = forecast(from_records(good), [1.5], [0.5]), forecast(from_records(good + useless), [1.5], [0.5])
    assert (mixed_in.truncated, mixed_in.ungraded, mixed_in.left_out, mixed_in.problems) == (1, 2, 1, 12)
    for left, right in zip(plain.points, mixed_in.points, strict=True):
        assert left.ess == pytest.approx(right.ess)
        assert left.accuracy is not None
        assert right.accuracy is not None
        assert left.accuracy.value == pytest.approx(right.accuracy.value, abs=0.002)


def test_a_forecast_is_json(wide: Population) -> None:
    found = forecast(wide.samples(np.random.default_rng(0), 20, 16), ks=[2])
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["problems"] == 20


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: from_records([]), "no records"),
        (lambda: from_records([record("a", float("nan"), True)]), "log p"),
        (lambda: from_records([record("a", -1.0, True)], [float("nan")]), "log q"),
        (lambda: forecast(coin([1] * 10, 3)), "enough|four"),
        (lambda: forecast(coin([1] * 10, 8), alphas=[0.0]), "alpha"),
        (lambda: forecast(coin([1] * 10, 8), betas=[-1.0]), "beta"),
    ],
)
def test_what_cannot_be_forecast_is_refused(make: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()  # type: ignore[operator]


# The frontier


def test_paths_and_what_lies_between_their_points() -> None:
    rights = np.random.default_rng(0).binomial(64, np.repeat([0.25, 0.5, 0.75], 30))
    found = forecast(coin(rights.tolist(), 64), [1.0, 2.0], [2.0, 1.0, 0.5])
    path = reward_path(found)
    assert [point.beta for point in path] == [None, 2.0, 1.0, 0.5]
    assert [point.alpha for point in sharpening_path(found)] == [1.0, 2.0]
    left, right = path[1], path[2]
    assert left.kl is not None
    assert right.kl is not None
    assert isinstance(left.accuracy, Interval)
    assert isinstance(right.accuracy, Interval)
    assert path[0].accuracy is not None
    between = (left.accuracy.value + right.accuracy.value) / 2
    assert least_kl(found, between) == pytest.approx((left.kl.value + right.kl.value) / 2)
    assert least_kl(found, right.accuracy.value) == pytest.approx(right.kl.value)
    assert least_kl(found, path[0].accuracy.value) == 0.0
    assert least_kl(found, path[0].accuracy.value - 0.1) is None
    assert least_kl(found, 1.0) is None
