"""Who does what: nothing twice, nothing left out, and evenly."""

import pytest
import torch

from tiltlab.system.world import ALONE
from tiltlab.training.dealing import deal, shared


@pytest.mark.parametrize("size", [1, 2, 3, 8, 20])
def test_every_item_goes_to_one_rank_and_shares_are_even(size: int) -> None:
    costs = (torch.rand(16, generator=torch.Generator().manual_seed(size)) * 9 + 1).tolist()
    shares = deal(costs, size)
    assert sorted(item for share in shares for item in share) == list(range(16))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(costs[item] for item in share) for share in shares]
    assert max(loads) <= sum(costs) / size + (1 - 1 / size) * max(costs)
    assert shares == deal(costs, size)


def test_what_belongs_together_goes_to_one_rank() -> None:
    keys = ["a", "b", "a", "c", "b", "a"]
    shares = deal([1.0] * 6, 3, together=keys)
    assert [{keys[item] for item in share} for share in shares] == [{"a"}, {"b"}, {"c"}]


def test_alone_all_is_done_in_its_own_order() -> None:
    assert deal([1, 3, 2], 1) == [[0, 1, 2]]
    assert shared(ALONE, [[0, 1, 2]], lambda rows: [row * 2 for row in rows]) == [0, 2, 4]
