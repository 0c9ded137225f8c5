"""An evaluation that several ranks share out: to the last digit what one makes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.ranks import on_ranks
from tiltlab.evaluation import evaluate as module
from tiltlab.evaluation.evaluate import Evaluated, evaluate, one_lot
from tiltlab.models.table import TableLanguage
from tiltlab.samplers.base import Info
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.system.world import ALONE, World
from tiltlab.tasks.lookup import Lookup
from tiltlab.types import Problem

PROMPTS = "aabcdef"


class Repeated(Lookup):
    """Two problems may ask the same."""

    def problems(self, split: str) -> Sequence[Problem]:
        return [Problem(id=str(number), question=prompt, answer="") for number, prompt in enumerate(self.prompts)]


def evaluated(world: World, at_once: int = 2) -> tuple[Evaluated, list[int]]:
    """What all ranks have, and what this one was told of progress."""
    module.CHUNK = at_once
    told: list[int] = []
    model = TableLanguage.random(0, symbols=3, max_symbols=4, prompts=sorted(set(PROMPTS)))
    task, sampler = Repeated(PROMPTS, {"ab": 1.0, "a": 0.5}), PowerSMC(alpha=2, particles=8)
    made = evaluate(
        model,
        model,
        sampler,
        task,
        task.problems("test"),
        n=3,
        max_tokens=5,
        seed=0,
        on_progress=told.append,
        world=world,
    )
    return made, told


def test_shared_out_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second turn there is one problem for three ranks."""
    monkeypatch.setattr(module, "CHUNK", module.CHUNK)
    expected, _ = evaluated(ALONE)
    first, second = expected.records[:3], expected.records[3:6]  # of problems that ask the same
    assert [record.text for record in first] != [record.text for record in second]
    for made, told in on_ranks(3, evaluated):
        assert told == [6, 7]
        assert made.records == expected.records
        assert made.first_P == expected.first_P
        assert replace(made.info, seconds=0.0) == replace(expected.info, seconds=0.0)


def test_notes_of_a_call_stand_beside_those_of_a_problem() -> None:
    lots = [
        Evaluated([], Info(3, seconds=2.0, notes={"each": [20, 0], "call": [7]}), ["c", "a"]),
        Evaluated([], Info(0), []),
        Evaluated([], Info(4, seconds=5.0, notes={"each": [10], "call": [8]}, warnings=("w",)), ["b"]),
    ]
    made = one_lot(lots, [[2, 0], [], [1]], n=1)
    assert made.info == Info(7, seconds=5.0, notes={"each": [0, 10, 20], "call": [7, 8]}, warnings=("w",))
    assert made.first_P == ["a", "b", "c"]
