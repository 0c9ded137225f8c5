"""kill -9 in the middle of a step of two: while it draws, once it has updated, while weights travel to an engine.

The same command goes on, and the folder ends as that of a run that was left alone, to the last digit.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command
from tests.study.test_kills import contents, finish
from tests.study.test_study import STUDY

pytestmark = pytest.mark.slow

TWO_STEPS: dict[str, Any] = STUDY | {
    "arms": [{"arm": "tilted", "beta": 0.1, "alpha": 0.5}],
    "train": STUDY["train"] | {"steps": 2, "prompts": 2, "responses": 3, "max_tokens": 12, "truncated": "keep"},
    "validation": {"every": 1, "problems": 2, "n": 1},
    "test": {"problems": 2, "n": 2, "sets": ["lazy-sum", "noisy-sum"]},
}

ENGINE = """
import copy
from contextlib import contextmanager
from tiltlab.models.engine import Replica, Split
from tiltlab.models.hf import HFModel
from tiltlab.study import run

@contextmanager
def by_a_copy(config, model, *_):
    yield Split(model, Replica(HFModel(copy.deepcopy(model.module).requires_grad_(False), model.codec)))

run.drawn_by = by_a_copy
"""
"""Has a copy of the model draw, as an engine would."""

IN_ROLLOUT = """
import os
from tiltlab.models.hf import HFModel
from tiltlab.training import train
steps, plain = train.train_step, HFModel.draw

def step(*arguments):
    def draw(self, *requests, **options):
        told = []
        self.tell = lambda tokens: os.kill(os.getpid(), 9) if len(told) == 4 else told.append(tokens)
        return plain(self, *requests, **options)

    HFModel.draw = draw if 1 in arguments else plain
    return steps(*arguments)

train.train_step = step
"""
"""Ends the process while the second step draws: `train_step` is told its number."""

IN_UPDATE = """
import os
from tiltlab.training.optimizer import Optimizer
plain = Optimizer.step

def step(self, number):
    norm = plain(self, number)
    if number == 1:
        os.kill(os.getpid(), 9)
    return norm

Optimizer.step = step
"""
"""Ends it when the weights have moved once more than anything on the disk."""

ON_THE_WAY = """
import os
from tiltlab.models.engine import Replica
plain = Replica.update

def update(self, weights, version):
    def some():
        for number, one in enumerate(weights()):
            if (number, version) == (3, 1):
                os.kill(os.getpid(), 9)
            yield one

    plain(self, some, version)

Replica.update = update
"""
"""Ends it when the engine has some of the new weights, and others of the old ones."""


def command(folder: Path) -> list[str]:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(TWO_STEPS))
    return ["study", str(recipe), "--jobs", "1", "--out", str(folder)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(command(folder))
    return contents(folder)


@pytest.mark.parametrize(
    ("engine", "moment"),
    [("", IN_ROLLOUT), ("", IN_UPDATE), (ENGINE, ON_THE_WAY)],
    ids=["rollout", "update", "weights"],
)
def test_killed_in_a_step_it_ends_the_same(engine: str, moment: str, undisturbed: Any, tmp_path: Path) -> None:
    arguments = command(tmp_path / "run")
    killed = Command(*arguments, first=engine + moment)
    assert killed.ended(300) == -signal.SIGKILL, killed.said()
    (metrics,) = (tmp_path / "run").rglob("metrics.jsonl")
    assert len(metrics.read_text().splitlines()) == 1  # the first step alone was done
    assert not list((tmp_path / "run").rglob("result.json"))
    again = Command(*arguments, first=engine)
    assert again.ended(300) == os.EX_OK, again.said()
    assert contents(tmp_path / "run") == undisturbed
