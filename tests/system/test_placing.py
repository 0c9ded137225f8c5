"""What each job gets of a cluster's machines."""

from typing import Any

import pytest

from tiltlab.errors import UserError
from tiltlab.system.placing import Node, Share, share_of


def nodes(*sizes: tuple[int, int]) -> list[Node]:
    return [Node(str(i), f"n{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(sizes)]


CASES: dict[str, tuple[Any, Any, Share, int]] = {
    "a GPU each": (nodes((16, 8), (16, 8)), ("auto", 1, None), Share(1, 0, 1, 2), 16),
    "four GPUs each, of one node": (nodes((16, 6), (16, 8)), ("cuda", 4, None), Share(4, 0, 4, 2), 3),
    "more GPUs than CPUs": (nodes((2, 4)), ("auto", 1, None), Share(1, 0, 1, 1), 4),
    "two jobs a node": (nodes((8, 0), (4, 0), (0, 0)), ("auto", 1, None), Share(0, 2, 1, 2), 6),
    "one CPU": (nodes((1, 0), (1, 0)), ("auto", 1, None), Share(0, 1, 1, 1), 2),
    "as many jobs as asked": (nodes((8, 0), (4, 0)), ("cpu", 1, 3), Share(0, 4, 1, 4), 3),
    "more jobs than CPUs": (nodes((2, 0)), ("cpu", 1, 9), Share(0, 1, 1, 1), 2),
    "ranks on a CPU": (nodes((8, 0)), ("cpu", 2, None), Share(0, 4, 2, 2), 2),
    "a CPU beside GPUs": (nodes((8, 8)), ("cpu", 1, None), Share(0, 4, 1, 4), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_gets(case: str) -> None:
    given, asked, share, room = CASES[case]
    found = share_of(given, *asked)
    assert (found, found.fit(given)) == (share, room)
    assert len(found.devices) == max(1, share.gpus)
    assert share.gpus == 0 or found.devices[0] == "cuda:0"


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (nodes((8, 0)), ("cuda", 1, None), "no node of the cluster has a GPU"),
        (nodes((8, 2), (8, 4)), ("auto", 8, None), "gpus: 8, and no node of the cluster has more than 4.*verl"),
        (nodes((8, 2)), ("cuda:1", 1, None), "asks for device cuda:1.*it is auto, cpu or cuda"),
        (nodes((0, 0)), ("cpu", 1, None), "no node of the cluster has a CPU"),
        ([], ("auto", 1, None), "no node of the cluster has a CPU"),
    ],
)
def test_what_no_node_can_run_is_refused(given: Any, asked: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        share_of(given, *asked)
