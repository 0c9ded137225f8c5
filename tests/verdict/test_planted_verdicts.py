"""The verdict where the truth is known. `python -m tests.planted` counts it over 20 seeds (docs/verdict.md)."""

import numpy as np
import pytest

from tests.planted.catalogue import ANSWERS, FORM, LENGTHS, PLANTS
from tests.planted.mixtures import read_leniently
from tests.planted.plants import Plant
from tiltlab.stats.metrics import Interval
from tiltlab.verdict.verdict import Evidence, Verdict, decide

AT_25 = tuple(plant for plant in LENGTHS if plant.name.startswith("spread 25:"))


def sum_of_parts(found: Verdict) -> float:
    assert found.parts is not None
    return sum(part.value for part in (found.parts.ends, found.parts.read, found.parts.sharpened, found.parts.taught))


def nearly(interval: Interval, truth: float) -> bool:
    """Within the interval, twice as wide: these are a few seeds, and not how often 95 % hold."""
    wider = (interval.high - interval.low) / 2 + 1e-9
    return interval.low - wider <= truth <= interval.high + wider


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_truth_is_found_with_both_models_and_from_records_alone(plant: Plant) -> None:
    planted = plant.make(101)
    for models in (True, False):
        assert planted.verdict(101, models=models).outcome == plant.expected(models=models)


@pytest.mark.parametrize("plant", [*AT_25, *ANSWERS, *FORM], ids=lambda plant: plant.name)
def test_it_is_found_again_and_known_parts_are_held(plant: Plant) -> None:
    planted = plant.make(102)
    both, alone = (planted.verdict(102, models=models) for models in (True, False))
    for models, found in ((True, both), (False, alone)):
        assert found.outcome == plant.expected(models=models)
        assert sum_of_parts(found) == pytest.approx(found.gain.b.value - found.gain.a.value, abs=1e-9)
    parts = alone.parts
    assert parts is not None
    form = Interval(parts.ends.value + parts.read.value, parts.ends.low, parts.ends.high)
    for interval, truth in (
        (form, plant.parts.form),
        (parts.sharpened, plant.parts.sharpened),
        (parts.taught, plant.parts.taught),
    ):
        assert truth is None or nearly(interval, truth)


@pytest.mark.parametrize("plant", FORM[:2], ids=lambda plant: plant.name)
def test_what_was_only_formed_was_not_taught(plant: Plant) -> None:
    """Voting would have had more than the tuned model: that is no part of its gain."""
    found = plant.verdict(104, models=True)
    assert found.parts is not None
    assert found.sharpened is not None
    assert found.sharpened.accuracy.value > found.gain.b.value + 0.05
    assert nearly(found.parts.taught, 0.0)


def test_an_answer_outside_of_the_box_is_read_by_lenient_grades() -> None:
    planted = FORM[0].make(100)
    lenient = [[read_leniently(record) for record in of] for of in (planted.base, planted.tuned)]
    found = decide(Evidence(planted.base, planted.tuned, lenient=(lenient[0], lenient[1])))
    assert found.outcome == "form explains it"
    assert found.parts is not None
    assert abs(found.parts.ends.value) < 0.03
    assert found.parts.read.value == pytest.approx(0.4, abs=0.1)


def test_it_is_said_how_far_a_tuned_model_was_followed() -> None:
    far = next(plant for plant in AT_25 if "5 spreads" in plant.name)
    found = far.verdict(100, models=False)
    assert found.sharpened is not None
    assert found.sharpened.likelihood is not None
    followed = found.sharpened.likelihood.followed
    assert followed is not None
    assert not followed.reached
    assert np.isfinite([followed.end, followed.tuned]).all()
    assert followed.end < followed.tuned
    assert f"{followed.tuned:.1f}" in found.why
