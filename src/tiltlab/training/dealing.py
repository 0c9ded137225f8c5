"""Which rank of a world does what: as even a share of the work for each as can be had without search.

Left out on purpose: moving work while it is done. A rank that is done waits for the slowest.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from tiltlab.system.world import World

Item = TypeVar("Item")


def deal(costs: Sequence[float], size: int, together: Sequence[Hashable] | None = None) -> list[list[int]]:
    """The numbers of the items that each of `size` ranks gets, in order; none for some, where there are few items.

    costs: of each item, not negative, in any unit.
    together: items with equal keys go to one rank.

    The dearest goes first, to the rank that has least so far (Graham 1969, SIAM J. Appl. Math. 17): the dearest share
    is at most 4/3 of what the best dealing has. The same on every rank.
    """
    lots: dict[Hashable, list[int]] = {}
    for item in range(len(costs)):
        lots.setdefault(together[item] if together else item, []).append(item)
    loads, shares = [0.0] * size, [list[int]() for _ in range(size)]
    for lot in sorted(lots.values(), key=lambda lot: -sum(costs[item] for item in lot)):
        rank = loads.index(min(loads))
        loads[rank] += sum(costs[item] for item in lot)
        shares[rank] += lot
    return [sorted(share) for share in shares]


def shared(
    world: World, shares: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Sequence[Item]]
) -> list[Item]:
    """What becomes of each item, in their order, every rank having worked on its share; all ranks call it.

    work: of some items, by their numbers; gives one thing for each.
    """
    given = world.gather(work(shares[world.rank]))
    made = {i: one for share, of in zip(shares, given, strict=True) for i, one in zip(share, of, strict=True)}
    return [made[i] for i in range(len(made))]
