"""Ranks that torchrun has started: the others do with rank 0 what it is given to do, and end when one of them does."""

from functools import partial
from pathlib import Path

import pytest

from tests.ranks import on_ranks
from tests.system.pieces_of_ranks import dies, led, not_finite, raises, saves_when_asked, tells
from tiltlab.errors import UserError
from tiltlab.system.torchrun import ranks_started

pytestmark = pytest.mark.slow


def test_rank_0_has_all_of_them_do_one_piece_after_another(tmp_path: Path) -> None:
    """Also after a stop, and after an error that comes to all alike."""
    told = on_ranks(2, led, tmp_path, tells, saves_when_asked, not_finite, tells)
    devices = (2, ["cpu:0", "cpu:1"], [])
    assert told == [[devices, "saved", "the gradient is not finite", devices], []]
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_them_all(rank: int, tmp_path: Path) -> None:
    ended = on_ranks(2, led, tmp_path, partial(raises, error=ValueError("no"), rank=rank))
    assert isinstance(ended[rank], UserError)
    assert str(ended[rank]).startswith(f"rank {rank} of 2: ValueError: no; the others end with it")
    assert isinstance(ended[1 - rank], EOFError | UserError)  # ended by its watch, or by the connection that closed


def test_a_rank_that_was_killed_ends_them_all(tmp_path: Path) -> None:
    assert [type(end) for end in on_ranks(2, led, tmp_path, dies)] == [EOFError, EOFError]


def test_ranks_on_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks_started() == 0
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert ranks_started() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="several machines.*tiltlab export verl RECIPE --arm ARM --out DIR"):
        ranks_started()
