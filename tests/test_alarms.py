"""Each alarm rings on what deserves it, and stays silent on a healthy, noisy run."""

import numpy as np
import pytest

from tiltlab.alarms import GAP, KINDS, WINDOW, Watch, alarms, watched

Line = dict[str, float]
STEPS = 60


def run(seed: int = 0, **towards: float) -> list[Line]:
    """A run of 128 responses a step, in which the named figures go evenly to these values; noise as of such a batch."""
    rng = np.random.default_rng(seed)
    start = {
        "reward": 0.4, "length": 40.0, "truncated": 0.02, "entropy": 0.5, "kl": 0.0, "ref_logp": -20.0,
        "no_signal": 0.1, "repeated": 0.01, "term_reward": 0.4, "term_sharpen": -20.0, "term_kl": 0.0,
        "reward_spread": 0.45, "spread_reward": 0.45, "spread_sharpen": 4.0, "spread_kl": 0.1,
    }  # fmt: skip
    noise = {"reward": 0.045, "length": 1.5, "entropy": 0.02, "ref_logp": 0.7, "no_signal": 0.07}
    lines = []
    for step in range(STEPS):
        part = step / (STEPS - 1)
        line = {key: value + part * (towards.get(key, value) - value) for key, value in start.items()}
        lines.append({key: value + noise.get(key, 0.0) * rng.normal() for key, value in line.items()} | {"step": step})
    return lines


def kinds(lines: list[Line], select: list[Line] = []) -> set[str]:  # noqa: B006
    return {alarm.kind for alarm in alarms(lines, select)}


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


def test_what_is_solved_has_no_signal_and_no_alarm() -> None:
    assert not kinds(run(no_signal=0.95, reward=0.98))


def test_a_regime_that_asks_for_nothing_has_no_signal_by_design() -> None:
    null = [line | {"term_reward": 0.0, "term_sharpen": 0.0, "no_signal": 1.0} for line in run()]
    assert not kinds(null)
    unsolved = [line | {"reward": 0.0, "reward_spread": 0.0} for line in null]
    assert kinds(unsolved) == {"no signal"}


def test_the_best_evaluation_above_the_last() -> None:
    select = [{"step": step, "accuracy": value} for step, value in ((0, 0.4), (15, 0.6), (30, 0.55), (45, 0.45))]
    (alarm,) = alarms([], select)
    assert (alarm.kind, alarm.step) == ("best above last", 45)
    assert "0.60 after step 15" in alarm.message
    assert not alarms([], [{"step": 0, "accuracy": float("nan")}, {"step": 1, "accuracy": 0.3}])
    assert not alarms([], [{"step": 0, "accuracy": 0.5}, {"step": 1, "accuracy": 0.5 - 0.9 * GAP}])


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
    select = [{"step": 20, "accuracy": 0.5}, {"step": 40, "accuracy": 0.2}]
    for stop in range(0, STEPS, 7):
        watch: Watch = watched(lines[:stop], [line for line in select if line["step"] <= stop])
        for line in lines[stop:]:
            watch.stepped(line)
            for evaluation in select:
                if evaluation["step"] == line["step"] + 1:
                    watch.evaluated(evaluation)
        assert watch.rung == alarms(lines, select)


def test_all_kinds_are_tried_here() -> None:
    assert len(KINDS) == 9
