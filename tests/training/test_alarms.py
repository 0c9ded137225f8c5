"""Each alarm fires on what deserves it, and not on a healthy, noisy run."""

from typing import get_args

import numpy as np
import pytest

from tiltlab.training.alarms import GAP, WINDOW, Kind, Watch, alarms, watched

Line = dict[str, float]
STEPS = 60


def run(seed: int = 0, responses: int = 128, steps: int = STEPS, **towards: float) -> list[Line]:
    """A run of so many responses a step, eight a group, in which the named figures go evenly to these values; noise as
    of such a batch: binomial for shares and rewards, for the rest as 128 responses of the default study show."""
    rng = np.random.default_rng(seed)
    start = {
        "reward": 0.4, "length": 40.0, "truncated": 0.02, "entropy": 0.5, "kl": 0.0, "ref_logp": -20.0,
        "no_signal": 0.1, "repeated": 0.01, "term_reward": 0.4, "term_sharpen": -20.0, "term_kl": 0.0,
        "reward_spread": 0.45, "spread_reward": 0.45, "spread_sharpen": 4.0, "spread_kl": 0.1,
        "mismatch_mean": 0.01, "ess": 0.7,
    }  # fmt: skip
    noise = {"length": 1.5, "entropy": 0.02, "ref_logp": 0.7, "mismatch_mean": 3e-4, "ess": 0.06}
    groups, larger = responses // 8, np.sqrt(128 / responses)
    lines = []
    for step in range(steps):
        part = step / (steps - 1)
        line = {key: value + part * (towards.get(key, value) - value) for key, value in start.items()}
        line = {key: value + larger * noise.get(key, 0.0) * rng.normal() for key, value in line.items()}
        line["reward"] = rng.binomial(responses, line["reward"]) / responses
        line["no_signal"] = rng.binomial(groups, line["no_signal"]) / groups
        lines.append(line | {"step": step, "responses": responses, "groups": groups})
    return lines


def kinds(lines: list[Line], validation: list[Line] = []) -> set[str]:  # noqa: B006
    return {alarm.kind for alarm in alarms(lines, validation)}


@pytest.mark.parametrize(
    ("towards", "kind"),
    [
        ({"length": 10.0}, "length collapse"),
        ({"length": 200.0}, "length explosion"),
        ({"truncated": 0.6}, "length explosion"),
        ({"entropy": 0.02}, "entropy collapse"),
        ({"kl": 30.0}, "KL run-away"),
        ({"ref_logp": -8.0, "reward": 0.3}, "likelihood without accuracy"),
        ({"no_signal": 0.9}, "no signal"),
        ({"spread_reward": 0.01}, "reward-scale imbalance"),
        ({"spread_kl": 80.0}, "reward-scale imbalance"),
        ({"spread_reward": 900.0}, "reward-scale imbalance"),
        ({"repeated": 0.5}, "repeated text"),
        ({"mismatch_mean": 0.2}, "sampler mismatch"),
        ({"ess": 0.02}, "few effective responses"),
    ],
)
def test_what_deserves_an_alarm_rings_it_and_no_other(towards: Line, kind: str) -> None:
    for seed in range(20):
        assert kinds(run(seed, **towards)) == {kind}


def test_a_healthy_noisy_run_rings_nothing() -> None:
    """1000 runs in which the reward rises, the KL grows to 4 nats, and responses grow by half. A window of 5 steps has
    2.2 times less noise than a step: every threshold is more than 6 standard errors away."""
    for seed in range(1000):
        assert not kinds(run(seed, reward=0.8, kl=4.0, length=60.0, ref_logp=-16.0, entropy=0.25))


@pytest.mark.slow
@pytest.mark.parametrize("responses", [16, 64, 1024])
def test_small_batches_ring_no_oftener(responses: int) -> None:
    """Two groups of eight are as likely as not to have no signal in one of them; 64 groups are looked at together. Of
    200 runs of 150 steps none fires: if one in fifty did, that would have a chance of .018."""
    calm = {"reward": 0.8, "kl": 4.0, "length": 60.0, "ref_logp": -14.0, "entropy": 0.25, "no_signal": 0.3}
    fired = [kinds(run(seed, responses, 150, **calm)) for seed in range(200)]
    assert not any(fired)


def test_small_batches_still_fire() -> None:
    for seed in range(20):
        assert kinds(run(seed, 16, 150, ref_logp=-8.0, reward=0.2)) == {"likelihood without accuracy"}
        assert kinds(run(seed, 16, 150, no_signal=0.95)) == {"no signal"}


def test_what_is_solved_has_no_signal_and_no_alarm() -> None:
    assert not kinds(run(no_signal=0.95, reward=0.98))
    solved_from_the_start = [line | {"reward": 0.98, "no_signal": 0.9} for line in run()]
    assert kinds(solved_from_the_start) == {"no signal"}  # whatever 0.98 is to that reward
    assert not kinds(solved_from_the_start, [evaluation(0, 0.98)])


def test_a_regime_that_asks_for_nothing_has_no_signal_by_design() -> None:
    null = [line | {"term_reward": 0.0, "term_sharpen": 0.0, "no_signal": 1.0} for line in run()]
    assert not kinds(null)
    unsolved = [line | {"reward": 0.0, "reward_spread": 0.0} for line in null]
    assert kinds(unsolved) == {"no signal"}


def evaluation(step: int, accuracy: float, graded: int = 256, ref_logp: float = -20.0) -> Line:
    return {"step": step, "accuracy": accuracy, "graded": graded, "ref_logp": ref_logp}


def test_the_best_evaluation_above_the_last() -> None:
    validation = [evaluation(step, value) for step, value in ((0, 0.4), (15, 0.6), (30, 0.55), (45, 0.42))]
    (alarm,) = alarms([], validation)
    assert (alarm.kind, alarm.step) == ("best above last", 45)
    assert "0.60 after step 15" in alarm.message
    assert not alarms([], [evaluation(0, float("nan")), evaluation(1, 0.3)])
    assert not alarms([], [evaluation(0, 0.5), evaluation(1, float("nan"), graded=0), evaluation(2, 0.5)])
    assert not alarms([], [evaluation(0, 0.5, 10_000), evaluation(1, 0.5 - 0.9 * GAP, 10_000)])
    assert kinds([], [evaluation(0, 0.5, 10_000), evaluation(1, 0.5 - 1.1 * GAP, 10_000)]) == {"best above last"}


@pytest.mark.parametrize(("problems", "n"), [(30, 1), (40, 4), (64, 4)])
def test_evaluations_of_the_same_model_ring_nothing(problems: int, n: int) -> None:
    """A run that stays what it is, evaluated twenty times: a drop of GAP alone would fire in up to 99 of 100 runs. One
    in a hundred is allowed: of 500 runs 5 expected then, sd 2.2, so 11."""
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(500):
        drawn = rng.binomial(n, 0.4, (20, problems)).mean(1) / n  # the noisiest there is: all equally hard
        fired += bool(alarms([], [evaluation(step, a, problems * n, -20.0 + step) for step, a in enumerate(drawn)]))
    assert fired <= 11


def test_a_hacked_reward_that_gets_likelier_and_worse() -> None:
    """The reward it trains on rises; the accuracy on the validation split is what falls."""
    validation = [evaluation(0, 0.4), evaluation(15, 0.38, ref_logp=-17.0), evaluation(30, 0.2, ref_logp=-9.0)]
    found = alarms(run(reward=0.9, ref_logp=-9.0), validation)
    assert [(alarm.kind, alarm.step) for alarm in found] == [
        ("best above last", 30),
        ("likelihood without accuracy", 30),
    ]
    assert "from 0.40 to 0.20" in found[1].message
    less_likely = [line | {"ref_logp": -20.0 - line["step"]} for line in validation]
    assert kinds(run(reward=0.9), less_likely) == {"best above last"}


def test_a_jump_of_the_mismatch_is_told_at_once_and_in_figures() -> None:
    """From what float32 leaves to what one update of stale weights makes, long before that is a tenth of a nat."""
    lines = [line | {"mismatch_mean": 1e-6 if line["step"] < 30 else 3e-4} for line in run()]
    (alarm,) = alarms(lines, [])
    assert (alarm.kind, alarm.step) == ("sampler mismatch", 31)
    assert "0.0003 nats a token apart, 1e-06 at the first step" in alarm.message


def test_a_jump_beyond_what_bf16_rounds_is_told() -> None:
    (alarm,) = alarms([line | {"mismatch_mean": 3e-4 if line["step"] < 30 else 0.05} for line in run()], [])
    assert (alarm.kind, alarm.step) == ("sampler mismatch", 31)


def test_a_gross_mismatch_is_told_at_the_first_step() -> None:
    (alarm,) = alarms([line | {"mismatch_mean": 0.18} for line in run()], [])
    assert (alarm.kind, alarm.step) == ("sampler mismatch", 1)
    assert alarm.message == "what drew the responses and the trainer are 0.18 nats a token apart"


@pytest.mark.parametrize(
    ("first", "then"),
    [(0.0, 5e-5), (1e-7, 2e-5), (1e-3, 5e-3), (3e-4, 5e-3), (0.01, 0.03)],
    ids=["0", "float32", "fp16", "bf16, little entropy at first", "bf16"],
)
def test_what_rounding_makes_is_no_mismatch(first: float, then: float) -> None:
    assert not kinds([line | {"mismatch_mean": then if line["step"] else first} for line in run()])


def test_one_bad_batch_rings_nothing() -> None:
    lines = run()
    lines[30] |= {"length": 1.0, "entropy": 0.0, "no_signal": 1.0}
    assert not kinds(lines)


def test_each_kind_rings_once_and_at_the_first_step_where_it_holds() -> None:
    lines = run(length=10.0)
    (alarm,) = alarms(lines, [])
    mean = np.convolve([line["length"] for line in lines], np.ones(WINDOW) / WINDOW, "valid")
    assert alarm.step == WINDOW + int(np.argmax(mean < 0.5 * mean[0]))


def test_missing_and_nan_figures_ring_nothing() -> None:
    assert not kinds([{"step": step, "reward": float("nan"), "length": 10.0} for step in range(20)])


def test_a_run_taken_up_again_rings_the_same() -> None:
    lines = run(length=10.0, entropy=0.02)
    validation = [evaluation(20, 0.5), evaluation(40, 0.2)]
    for stop in range(0, STEPS, 7):
        watch: Watch = watched(lines[:stop], [line for line in validation if line["step"] <= stop])
        for line in lines[stop:]:
            watch.stepped(line)
            for found in validation:
                if found["step"] == line["step"] + 1:
                    watch.evaluated(found)
        assert watch.fired == alarms(lines, validation)


def test_all_kinds_are_tried_here() -> None:
    assert len(get_args(Kind)) == 11
