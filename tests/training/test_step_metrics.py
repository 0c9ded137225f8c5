"""What a step tells of itself, beyond what the tests of the trainer look at."""

import pytest

from tiltlab.training.step_metrics import ends_in_a_loop
from tiltlab.types import Rollout


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([7] * 16, True),
        ([7] * 15, False),
        ([1, 2, 3, *[4, 5, 6] * 6], True),
        ([*[4, 5, 6] * 6, 1, 2, 3], False),
        ([*range(16)] * 3, True),
        ([*range(16)] * 2, False),
        ([*range(17)] * 4, False),
        (list(range(100)), False),
        ([], False),
    ],
)
def test_a_response_that_ends_in_a_loop(tokens: list[int], loops: bool) -> None:
    truncated = Rollout(tuple(tokens), "", False, (0.0,) * len(tokens))
    ended = Rollout((*tokens, 999), "", True, (0.0,) * (len(tokens) + 1))
    assert ends_in_a_loop(truncated) == ends_in_a_loop(ended) == loops
