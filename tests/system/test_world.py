"""What ranks tell each other."""

from tests.ranks import on_ranks
from tiltlab.system.world import ALONE, World


def _told(world: World) -> tuple[list[int], str, bool]:
    world.wait()
    return world.gather(10 * world.rank), world.of_first(f"from {world.rank}"), world.is_first


def test_what_ranks_give_comes_to_all_of_them_rank_by_rank():
    expected = [([0, 10, 20], "from 0", rank == 0) for rank in range(3)]
    assert on_ranks(3, _told) == expected


def test_alone_nothing_is_exchanged():
    assert _told(ALONE) == ([0], "from 0", True)
