"""The plants: are the tuned models what they are called, and are log-probabilities those that they are drawn by?"""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.planted import worlds
from tests.planted.catalogue import ANSWERS, FORM, LENGTHS, PLANTS
from tests.planted.mixtures import Distribution, Floats, LikeliestOf, Mixture, Responses, read_leniently, vote
from tests.planted.plants import Plant
from tiltlab.stats.by_problem import by_problem
from tiltlab.types import Record

PROBLEMS, MANY = 12, 20_000


def bases() -> dict[str, Mixture]:
    generator = np.random.default_rng(1)
    return {
        "long": worlds.long(generator, PROBLEMS, 25.0, 0.8),
        "by length": worlds.long(generator, PROBLEMS, 25.0, 0.8, "by length"),
        "answers": worlds.spread_answers(generator, PROBLEMS),
        "short": worlds.both_help(generator, PROBLEMS),
    }


def right_PN(base: Mixture, responses: Responses) -> Floats:
    return base.right_J[responses.kind_PN].astype(float)


@pytest.mark.parametrize("name", ["long", "by length", "answers", "short"])
def test_a_reweighted_base_has_the_figures_of_the_model_drawn_directly(name: str) -> None:
    base, generator = bases()[name], np.random.default_rng(2)
    models: dict[str, Distribution] = {
        "p^1.02": base.power(1.02),
        "answers": base.times(base.log_answer_PJ()),
        "taught": base.taught((1 + base.accuracy_P()) / 2),
        "vote": vote(base, 4, generator),
    }
    if name != "answers":  # which has ties
        models["best of 4"] = LikeliestOf(base, 4)
    drawn = base.sample(MANY, generator)
    for model in models.values():
        direct = model.sample(MANY, generator)
        weight_PN = np.exp(model.log_density(drawn) - base.log_density(drawn))
        assert weight_PN.mean() == pytest.approx(1, abs=0.02)
        for of in (lambda some: right_PN(base, some), lambda some: some.logp_PN / 100):
            assert (weight_PN * of(drawn)).mean() == pytest.approx(of(direct).mean(), abs=0.02)


def test_p_alpha_is_weighed_by_likelihood_alone() -> None:
    for base in bases().values():
        drawn = base.sample(50, np.random.default_rng(3))
        log_weight_PN = base.power(1.5).log_density(drawn) - base.log_density(drawn)
        left_PN = log_weight_PN - 0.5 * drawn.logp_PN
        assert np.ptp(left_PN, axis=1) == pytest.approx(0, abs=1e-6)


def test_the_vote_s_chances_are_those_of_all_sets_of_votes() -> None:
    base = worlds.both_help(np.random.default_rng(0), 3)
    two = vote(base, 2, np.random.default_rng(1))  # a tie goes to either: two votes are no more than one
    assert np.exp(two.log_mass_PA()) == pytest.approx(np.exp(base.log_mass_PA()), abs=0.015)
    many = vote(base, 999, np.random.default_rng(1))
    first = base.log_mass_PA().argmax(1)
    assert (many.log_mass_PA().argmax(1) == first).all()


def accuracy(records: Sequence[Record]) -> float:
    return float(np.mean([record.reason == "correct" for record in records]))


@pytest.mark.parametrize("plant", [*LENGTHS, *ANSWERS, *FORM], ids=lambda plant: plant.name)
def test_records_are_such_as_an_evaluation_writes(plant: Plant) -> None:
    planted = plant.make(5)
    assert len(planted.cross_logp) == len(planted.base)
    for records in (planted.base, planted.tuned, *planted.powers.values()):
        assert len({len(group) for group in by_problem(records).values()}) == 1
        for record in records:
            assert (record.answer is None) == (record.reason == "no_answer")
            assert record.complete or record.answer is None
            assert record.ref_logp < 0
            assert record.tokens > 0
    assert [record.logp for record in planted.base] == [record.ref_logp for record in planted.base]
    gain = accuracy(planted.tuned) - accuracy(planted.base)
    assert gain < -0.05 if plant.truth == "collapse" else gain > 0.05


def test_who_looks_outside_of_the_box_finds_nothing_learnt_but_the_format() -> None:
    planted = FORM[0].make(0)
    read = [read_leniently(record) for record in planted.base]
    assert accuracy(planted.tuned) - accuracy(planted.base) > 0.3
    assert accuracy(read) == pytest.approx(accuracy(planted.tuned), abs=0.03)
    assert FORM[1].make(0).base == [read_leniently(record) for record in FORM[1].make(0).base]  # a prefix says nothing


def test_names_are_told_apart() -> None:
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) == 42
