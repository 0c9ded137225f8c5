"""The lines of a forecast that need no label: intervals, what is withheld, first steps, and what becomes of a run."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from benchmarks.path_coverage import POWERS, RANKS, VOTES, Pool, answered, held, simulate

from tests.forecast.test_forecast import record
from tiltlab.errors import UserError
from tiltlab.forecast.forecast import ALPHAS, base_forecast
from tiltlab.forecast.frontier import rank_points, sharpening_path, vote_points, voting_points
from tiltlab.forecast.lines import Lines
from tiltlab.types import Record


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spread", "wide"])
def test_intervals_hold_what_is_summed_over_all_responses(kind: str) -> None:
    """150 data sets; 95 % stays within 3.3 standard errors (1.8 %) and what a pool of 300 languages is off by."""
    pool = Pool.of(answered(kind, 300), 64)
    found: dict[tuple[str, float], list[list[float]]] = {}
    for key, point in simulate(pool, 60, 150):
        found.setdefault(key, []).append(held(point, pool.exact[key]))
    assert len(found) == len(RANKS) + len(POWERS) + len(VOTES)
    for key, rows in found.items():
        table = np.array(rows)
        for share in table[:, ~np.isnan(table).all(0)].T:
            assert np.nanmean(share) > 0.87, key
    assert not pool.hopeless(60)


def answering(problem: str, answer: str, logp: float, tokens: int = 4) -> Record:
    return replace(record(problem, logp, answer == "1", tokens), answer=answer, text=f"{answer} {logp}")


def world(kind: str, problems: int = 40, n: int = 32, seed: int = 0) -> list[Record]:
    """spread: one likely wrong response, the right answer in many wordings. lazy: the likely wrong one is the majority.
    noisy: right ones are likelier. long: log p spreads over 25 nats, and tells nothing."""
    rng = np.random.default_rng(seed)
    likely = {"spread": 0.3, "lazy": 0.6, "noisy": 0.0, "long": 0.0}[kind]
    records = []
    for p in range(problems):
        for _ in range(n):
            if rng.random() < likely:
                records.append(answering(str(p), "2", np.log(likely), 2))
                continue
            answer = "1" if rng.random() < (0.6 if kind in ("noisy", "long") else 0.9) else str(rng.integers(3, 9))
            spread = 25.0 if kind == "long" else 0.5
            logp = -9.0 - 0.8 * (kind == "noisy" and answer != "1") - 200 * (kind == "long") + spread * rng.normal()
            records.append(answering(str(p), answer, logp, 40))
    return records


def lines(kind: str) -> Lines:
    found = base_forecast(world(kind)).lines
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "fates"),
    [
        ("spread", {"vote": "rises", "tempered": "collapses", "sharpening": "collapses", "entropy": "collapses"}),
        ("lazy", {"vote": "collapses", "tempered": "collapses", "sharpening": "collapses", "entropy": "collapses"}),
        ("noisy", {"vote": "rises", "tempered": "rises", "sharpening": "rises", "entropy": "rises"}),
    ],
)
def test_what_becomes_of_a_run_that_rewards_itself(kind: str, fates: dict[str, str]) -> None:
    found = lines(kind)
    assert {rise.method: rise.outcome for rise in found.rises} == fates
    first = found.steps
    assert first.answers is not None
    assert (first.likelihood.slope.high < 0) == (fates["tempered"] == "collapses")
    assert (first.answers.slope.low > 0) == (fates["vote"] == "rises")
    assert first.reward.gain.value > max(first.likelihood.gain.value, first.answers.gain.value)


def test_what_rises_and_then_falls_has_its_peak_inside() -> None:
    """Right responses are the likelier ones, but one wrong response is the likeliest, and rare."""
    rng = np.random.default_rng(0)
    records = []
    for p in range(60):
        for _ in range(64):
            kind = rng.choice(3, p=[0.06, 0.44, 0.5])
            logp = [-1.0, -8.0, -12.0][kind] + 0.3 * rng.normal()
            records.append(answering(str(p), "1" if kind == 1 else "2", logp))
    found = base_forecast(records).lines
    assert found is not None
    sharpened = next(rise for rise in found.rises if rise.method == "sharpening")
    assert sharpened.outcome == "collapses"
    assert sharpened.peak in (2, 4, 8)
    tempered = next(rise for rise in found.rises if rise.method == "tempered")
    assert tempered.outcome == "cannot tell"
    assert "turns" in tempered.why


def test_at_25_nats_neither_line_ends_at_its_first_point() -> None:
    found = base_forecast(world("long", 60, 64))
    alphas = [point.alpha for point in sharpening_path(found)]
    assert len(alphas) >= 4
    assert all(alpha < 1.1 for alpha in alphas)
    assert {point.alpha for point in found.points} > set(ALPHAS)
    ranks = rank_points(found)
    assert ranks[-1].strength == 64
    assert ranks[-1].kl is not None
    assert ranks[-1].kl.value == pytest.approx(np.log(64) - 63 / 64)
    assert [point.strength for point in voting_points(found)] == [1, 2, 4, 8]
    assert [point.strength for point in vote_points(found)] == [1, 2, 4, 8]


def short_are_likely() -> list[Record]:
    """log p falls by a nat a token, and short responses are wrong."""
    rng = np.random.default_rng(0)
    records = []
    for p in range(60):
        for _ in range(48):
            tokens = int(rng.integers(10, 100))
            right = bool(rng.random() < tokens / 100)
            records.append(answering(str(p), "1" if right else "2", -tokens * (1 + 0.05 * rng.normal()), tokens))
    return records


def test_how_much_of_the_path_is_a_liking_for_length_is_seen() -> None:
    """Among responses of like length nothing is told."""
    found = base_forecast(short_are_likely()).lines
    assert found is not None
    by_all, by_token, alike = found.ranks, found.token_ranks, found.like_length
    assert by_all[-1].accuracy is not None
    assert by_all[-1].accuracy.high < 0.3
    assert by_all[-1].length is not None
    assert by_all[-1].length.high < 16
    for points in (by_token, alike):
        assert points[0].accuracy is not None
        last = points[-1].accuracy
        assert last is not None
        assert abs(last.value - points[0].accuracy.value) < 0.25
    assert by_token[-1].accuracy is not None
    assert by_token[-1].accuracy.low > 0.3


def test_answers_that_are_no_votes_leave_the_other_lines_and_say_why() -> None:
    essays = [replace(r, answer=f"they all went home at last {r.text} and so on for ever") for r in world("noisy")]
    found = base_forecast(essays).lines
    assert found is not None
    assert found.unvoted is not None
    assert "free text" in found.unvoted
    assert found.powers == found.votes == ()
    assert found.steps.answers is None
    assert [rise.method for rise in found.rises] == ["tempered", "sharpening", "entropy"]


def test_few_problems_have_no_intervals_and_a_forecast_is_json() -> None:
    found = base_forecast(world("noisy", 6))
    assert found.lines is not None
    assert all(point.accuracy is None and point.why for point in (*found.lines.ranks, *found.lines.votes))
    assert {rise.outcome for rise in found.lines.rises} == {"cannot tell"}
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["problems"] == 6


def test_answer_power_is_withheld_where_samples_do_not_agree() -> None:
    records = [answering(str(p), str(i), -5.0) for p in range(20) for i in range(16)]
    found = base_forecast(records).lines
    assert found is not None
    assert [point.supported for point in found.powers] == [True, False, False, False]
    assert found.powers[1].why == "too few problems have so many samples that agree"
    with pytest.raises(UserError, match="four|enough"):
        base_forecast(records[:3])


def test_a_power_takes_eight_samples_for_each_of_g() -> None:
    """In a close race (.4 for a wrong answer, .3 for the right one) 32 samples would have g = 8 far too right."""
    rng = np.random.default_rng(0)
    answers = rng.choice(["1", "2", "3"], (60, 32), p=[0.33, 0.44, 0.23])
    found = base_forecast([answering(str(p), a, -5.0) for p, row in enumerate(answers) for a in row]).lines
    assert found is not None
    assert [point.supported for point in found.powers] == [True, True, True, False]
    assert found.powers[3].samples_needed is not None
    assert found.powers[3].samples_needed >= 64
