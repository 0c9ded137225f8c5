"""Random numbers that depend on where they are used and on nothing else.

No generator is kept from step to step, so there is no generator state to save: a run that stopped goes on with the same
numbers as one that did not.
"""

import hashlib
from functools import lru_cache

import numpy as np


def derive(seed: int, *keys: object) -> int:
    """A 63-bit seed for one use, different for every (seed, keys), the same on every machine.

    seed: of the whole run.
    keys: name the use; values whose repr is the same everywhere (numbers, texts, tuples of them).
    """
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split_key(split: str) -> str:
    """What `derive` is told of a split. The validation split was called `select` once, and its samples stay the
    same."""
    return "select" if split == "validation" else split


def batch_indices(step: int, size: int, total: int, seed: int) -> list[int]:
    """The numbers of the items in one batch, out of an endless run of shuffled epochs.

    step: the number of the batch, from 0.
    size: items in a batch.
    total: items in an epoch.
    seed: of the shuffles.
    """
    positions = range(step * size, (step + 1) * size)
    return [_order(position // total, total, seed)[position % total] for position in positions]


@lru_cache(maxsize=4)  # a batch seldom reaches into more epochs than two, and an order can be long
def _order(epoch: int, total: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(derive(seed, "epoch", epoch)).permutation(total).tolist())
