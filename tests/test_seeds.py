import subprocess
from typing import Any

import numpy as np
import pytest

from tiltlab import seeds
from tiltlab.seeds import batch_indices, derive
from tiltlab.system import provenance


def test_seeds_are_the_same_everywhere_and_differ_by_place() -> None:
    assert derive(0, "rollout", 3) == 1320416013433573303
    places = [(seed, name, step) for seed in range(3) for name in ("rollout", "test") for step in range(50)]
    assert len({derive(seed, name, step) for seed, name, step in places}) == len(places)


@pytest.mark.parametrize(("size", "total", "seed"), [(3, 5, 1), (16, 40, 0), (7, 3, 2), (4, 1, 0), (16, 3145, 9)])
def test_batches_are_cut_from_shuffled_epochs(size: int, total: int, seed: int) -> None:
    def order(epoch: int) -> list[int]:
        return np.random.default_rng(derive(seed, "epoch", epoch)).permutation(total).tolist()  # type: ignore[no-any-return]

    for step in (0, 1, 5, 300, 2):
        places = range(step * size, (step + 1) * size)
        assert batch_indices(step, size, total, seed) == [order(i // total)[i % total] for i in places]


def test_an_epoch_is_shuffled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = []
    monkeypatch.setattr(seeds, "derive", lambda *place: shuffled.append(place) or derive(*place))
    for step in range(20):
        batch_indices(step, 10, 50, seed=123456)
    assert shuffled == [(123456, "epoch", epoch) for epoch in range(4)]


def test_a_git_that_hangs_is_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def hanging(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(subprocess, "run", hanging)
    assert provenance.provenance()["commit"] is None
