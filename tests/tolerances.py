"""How far off honest randomness may be."""

import math

import torch
from torch import Tensor


def tv_tolerance(distribution: Tensor, samples: int, chance: float = 1e-6) -> float:
    """A total variation that the empirical distribution of `samples` draws from `distribution` exceeds with probability
    below `chance`.

    Its mean is at most half the sum of sqrt(p (1 - p) / n); one draw moves it by at most 1 / n, so McDiarmid's
    inequality bounds what lies beyond.
    """
    distribution = distribution.double()
    mean = 0.5 * (distribution * (1 - distribution) / samples).sqrt().sum().item()
    return mean + math.sqrt(math.log(1 / chance) / (2 * samples))


def worst_z(samples_NK: Tensor, expected_K: Tensor) -> float:
    """The largest |mean - expected| in standard errors over K quantities, from N independent samples of each.

    A quantity that never varies must be met to rounding.
    """
    samples_NK, expected_K = samples_NK.double(), expected_K.double()
    error_K = (samples_NK.mean(0) - expected_K).abs()
    standard_K = samples_NK.std(0) / math.sqrt(len(samples_NK))
    fixed = standard_K < 1e-9
    assert (error_K[fixed] < 1e-6).all()
    return float((error_K[~fixed] / standard_K[~fixed]).max()) if (~fixed).any() else 0.0


def nearly(distribution: Tensor, other: Tensor, tolerance: float = 1e-6) -> bool:
    return bool(torch.allclose(distribution.double(), other.double(), atol=tolerance))


def share_tolerance(share: float, samples: int, z: float = 4.0) -> float:
    """How far an observed share of so many independent trials may lie from the true one: four standard errors."""
    return z * math.sqrt(share * (1 - share) / samples)
