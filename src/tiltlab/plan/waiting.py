"""What ranks wait for each other where responses differ in length, by dealing out groups whose lengths are drawn."""

from random import Random

from tiltlab.plan.shapes import Batch
from tiltlab.training.dealing import deal

SPREAD = 0.5
"""Standard deviation of the logarithm of a group's mean length, and of a response's around it; assumed."""

DRAWS = 50

MOST = Batch(512, 16, 1, 1)
"""Groups and responses that are looked at: of more the busiest rank has hardly more than the mean."""


def busiest(batch: Batch, ranks: int) -> tuple[float, float]:
    """Tokens of the rank that has most, as a multiple of the mean: drawn, where groups are dealt out before anybody
    knows their length; and learnt from, where they are dealt out by it."""
    chance, drawn, learnt = Random(0), 0.0, 0.0
    groups, responses = min(batch.groups, MOST.groups), min(batch.responses, MOST.responses)
    for _ in range(DRAWS):
        lengths = [_length(chance, responses) for _ in range(groups)]
        drawn += _most(lengths, deal([1.0] * groups, ranks)) / DRAWS
        learnt += _most(lengths, deal(lengths, ranks)) / DRAWS
    return drawn, learnt


def _length(chance: Random, responses: int) -> float:
    mean = chance.lognormvariate(0, SPREAD)
    return sum(mean * chance.lognormvariate(0, SPREAD) for _ in range(responses))


def _most(lengths: list[float], shares: list[list[int]]) -> float:
    return max(sum(lengths[group] for group in share) for share in shares) * len(shares) / sum(lengths)
