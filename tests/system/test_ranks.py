"""One piece of work on several ranks: they start, stop and end together, whatever happens to one of them."""

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.processes import python, runs, wait_until
from tests.system.pieces_of_ranks import dies, full, raises, run, saves_when_asked, tells
from tiltlab.errors import Stopped, UserError
from tiltlab.system.ranks import RankFailed

pytestmark = pytest.mark.slow


def ranks_in(folder: Path) -> list[int]:
    """The processes of ranks that have begun."""
    return [int(path.read_text()) for path in folder.iterdir() if path.name.isdecimal()]


def test_all_ranks_work_and_the_first_alone_tells(tmp_path: Path) -> None:
    assert run(partial(tells, tmp_path), size=3) == [(3, ["cpu:0", "cpu:1", "cpu:2"], [])]
    assert len(set(ranks_in(tmp_path))) == 3
    assert not any(map(runs, ranks_in(tmp_path)))


def test_a_stop_comes_to_all_ranks_at_the_same_place(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(partial(saves_when_asked, tmp_path), stopping=lambda: (tmp_path / "1").exists())
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.parametrize(
    ("piece", "error", "said"),
    [
        (dies, UserError, "rank 1 of 2 was killed .* the others with it; .*give the same command again to go on"),
        (partial(raises, error=ValueError("no"), rank=1), RankFailed, "rank 1 of 2: ValueError: no$"),
        (full, UserError, "^the disk is full"),
    ],
)
def test_a_rank_that_dies_or_raises_takes_the_others_along(
    piece: Callable[..., None], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        run(partial(piece, tmp_path))
    assert not any(map(runs, ranks_in(tmp_path)))


def test_killed_the_launcher_leaves_no_rank(tmp_path: Path) -> None:
    code = """
from functools import partial
from pathlib import Path
from tests.system import pieces_of_ranks

pieces_of_ranks.run(partial(pieces_of_ranks.hangs, Path(sys.argv[1])))
"""
    process = subprocess.Popen(python(code, str(tmp_path)))
    wait_until(lambda: len(ranks_in(tmp_path)) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(runs, ranks_in(tmp_path))), 30)
