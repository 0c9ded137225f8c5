"""Which rank of a world does what: as even a share of the work for each as can be had without search.

Left out on purpose: moving work while it is done. A rank that is done waits for the slowest.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from tiltlab.models.base import LanguageModel
from tiltlab.system.world import World
from tiltlab.types import Prompt, Rollout

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


def deal_prompts(model: LanguageModel, prompts_P: Sequence[Prompt], max_tokens: int, world: World) -> list[list[int]]:
    """The numbers of the prompts that each rank draws responses to, before anybody knows how long those are. Equal
    prompts go to one rank: they get other responses only within a call.

    model: that reads them.
    max_tokens: the limit on a response.
    """
    if world.size == 1:
        return [list(range(len(prompts_P)))]
    ids_P = [tuple(model.encode(prompt)) for prompt in prompts_P]
    return deal([len(ids) + max_tokens for ids in ids_P], world.size, together=ids_P)


def deal_groups(
    model: LanguageModel, prompts_P: Sequence[Prompt], rollouts_PG: Sequence[Sequence[Rollout]], world: World
) -> list[list[int]]:
    """The numbers of the groups that each rank learns from, by the tokens that they took: whoever drew a group need not
    learn from it.

    model: that reads the prompts.
    """
    if world.size == 1:
        return [list(range(len(rollouts_PG)))]
    pairs = zip(prompts_P, rollouts_PG, strict=True)
    return deal([len(model.encode(p)) + sum(len(r.tokens) for r in group) for p, group in pairs], world.size)


def shared(
    world: World, shares: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Sequence[Item]]
) -> list[Item]:
    """What becomes of each item, in their order, every rank having worked on its share; all ranks call it.

    work: of some items, by their numbers; gives one thing for each.
    """
    return in_order(shares, world.gather(work(shares[world.rank])))


def in_order(shares: Sequence[Sequence[int]], given: Sequence[Sequence[Item]]) -> list[Item]:
    """What ranks have made of the items of their shares, by the items' numbers.

    given: of each rank, one thing for each item of its share.
    """
    made = {i: one for share, of in zip(shares, given, strict=True) for i, one in zip(share, of, strict=True)}
    return [made[i] for i in range(len(made))]
