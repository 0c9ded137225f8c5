"""The embedded model: it answers as the students do, and each way to sharpen does to it what theory says."""

import random
from functools import cache
from importlib.resources import files
from statistics import mean

import pytest

from tests.tolerances import share_tolerance
from tiltlab.evaluation.evaluate import evaluate
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import load_model
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.best_of_n import BestOfN, Majority
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.tasks.sums import Sums, write
from tiltlab.types import Record

TASKS = [Sums("lazy-sum"), Sums("noisy-sum"), Sums("spread-sum")]


@pytest.fixture(scope="module")
def model() -> HFModel:
    return load_model()


@cache
def as_it_is(model: HFModel, task: Sums) -> list[Record]:
    return records(model, task, Temperature(1.0), 16, 60)


def records(model: HFModel, task: Sums, sampler: Sampler, n: int, problems: int) -> list[Record]:
    return evaluate(model, model, sampler, task, task.problems("test")[:problems], n=n, max_tokens=64, seed=0).records


def accuracy(records: list[Record]) -> float:
    return mean(record.reward for record in records)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_it_is_right_as_often_and_as_long_as_the_students(model: HFModel, task: Sums) -> None:
    mine, rng = as_it_is(model, task), random.Random(0)
    told = [
        (problem, write(task.name, problem.columns["a"], problem.columns["b"], rng))
        for problem in task.problems("test")
        for _ in range(20)
    ]
    right = mean(task.grade(problem, text).reward for problem, text in told)
    assert accuracy(mine) == pytest.approx(right, abs=share_tolerance(right, len(mine)))
    tokens = mean(len(text) + 1 for _, text in told)  # one a character, and the end
    assert mean(record.tokens for record in mine) == pytest.approx(tokens, rel=0.08)
    assert mean(record.complete for record in mine) > 0.999


@pytest.mark.parametrize(
    ("task", "likelihood_helps", "votes_help"),
    [(TASKS[0], False, False), (TASKS[1], True, True), (TASKS[2], False, True)],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_sharpening_does_to_it(model: HFModel, task: Sums, likelihood_helps: bool, votes_help: bool) -> None:
    base = accuracy(as_it_is(model, task))
    for sampler in (Temperature(0.25), BestOfN(4), PowerSMC(alpha=4, particles=16)):
        found = accuracy(records(model, task, sampler, 8, 20))
        assert found > base + 0.15 if likelihood_helps else found < base - 0.15
    voted = accuracy(records(model, task, Majority(32), 1, 40))
    assert voted > 0.9 if votes_help else voted < base - 0.15


def test_it_is_small_and_nothing_but_weights_and_text() -> None:
    kept = [file for file in (files("tiltlab.embedded") / "sums-0.3M").iterdir() if file.is_file()]
    assert {file.name.rsplit(".", 1)[1] for file in kept} == {"json", "safetensors"}
    assert sum(len(file.read_bytes()) for file in kept) < 4e6
