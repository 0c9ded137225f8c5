"""Drawing responses token by token, many rows side by side.

Left out on purpose: top-k, top-p, penalties. Training needs the model's own distribution, and samplers build on this
one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiltlab.models.context import Context
from tiltlab.models.vocabulary import log_normaliser
from tiltlab.seeds import derive

LEAVE = 1 / 8
"""Finished rows leave the batch once they are this share of it: each leaving copies the others' keys once."""


class Drawn(NamedTuple):
    """One response: its tokens, their log-probabilities at temperature 1, and whether it ended before the limit."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    complete: bool


def noise(ids_P: Sequence[Sequence[int]], n: int, max_tokens: int, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [P * n, max_tokens]: all the randomness of a call to `generate`.

    They depend on the seed, the prompt and the number of the response, so neither the other prompts of a batch nor rows
    that leave it change a response. A prompt that comes twice gets other numbers the second time.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    blocks = []
    for ids in map(tuple, ids_P):
        blocks.append(np.random.default_rng(derive(seed, ids, seen[ids])).random((n, max_tokens)))
        seen[ids] += 1
    return torch.from_numpy(np.concatenate(blocks))


class Token(NamedTuple):
    """One token a row: int64 [N], its log-probability at temperature 1 and under the distribution that it was drawn
    from: float32 [N], nats."""

    token_N: Tensor
    logp_N: Tensor
    logq_N: Tensor


def draw(logits_NV: Tensor, uniform_N: Tensor, temperature: float = 1.0) -> Token:
    """A token from softmax(logits / temperature) by inverting its distribution function at `uniform_N`."""
    logits_NV = logits_NV.float()
    probs_NV = logits_NV.softmax(-1)
    if temperature == 1:
        token_N = invert(probs_NV, uniform_N)
        logp_N = _logprob(logits_NV, probs_NV, token_N)
        return Token(token_N, logp_N, logp_N)
    scaled_NV = logits_NV / temperature
    colder_NV = scaled_NV.softmax(-1)
    token_N = invert(colder_NV, uniform_N)
    return Token(token_N, _logprob(logits_NV, probs_NV, token_N), _logprob(scaled_NV, colder_NV, token_N))


def invert(probs_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """The token at which each cumulative distribution passes `uniform_N`; a token of probability 0 never
    is."""
    cumulative_NV = probs_NV.cumsum(-1, dtype=torch.float64)
    at_N1 = uniform_N[:, None] * cumulative_NV[:, -1:]  # rounding leaves the last entry a little off 1
    token_N1 = torch.searchsorted(cumulative_NV, at_N1, right=True).clamp(max=probs_NV.shape[-1] - 1)
    return token_N1[:, 0]


def _logprob(logits_NV: Tensor, probs_NV: Tensor, token_N: Tensor) -> Tensor:
    return logits_NV.gather(-1, token_N[:, None])[:, 0] - log_normaliser(logits_NV, probs_NV)


def decode(
    head: Callable[[Tensor], Tensor],
    read_on: Callable[[Context, Tensor], Context],
    context: Context,
    noise_NT: Tensor,
    temperature: float,
    ends_V: Tensor,
    tell: Callable[[int], None],
) -> list[Drawn]:
    """Continue every row of `context` until it draws a token marked in `ends_V` or reaches the noise's last column.
    `tell` is told at each step how many tokens it drew."""
    size, limit = noise_NT.shape
    tokens_NT = torch.zeros(size, limit, dtype=torch.long, device=ends_V.device)
    logp_NT = torch.zeros(size, limit, device=ends_V.device)
    length_N = torch.full((size,), limit, device=ends_V.device)
    complete_N = torch.zeros(size, dtype=torch.bool, device=ends_V.device)
    row_N, going_N = torch.arange(size, device=ends_V.device), torch.ones_like(complete_N)
    left = size
    for t in range(limit):
        token_N, logp_N, _ = draw(head(context.hidden_NH), noise_NT[row_N, t], temperature)
        tell(left)
        tokens_NT[row_N, t], logp_NT[row_N, t] = token_N, logp_N
        ended_N = going_N & ends_V[token_N]
        length_N[row_N[ended_N]], complete_N[row_N[ended_N]] = t + 1, True
        going_N = going_N & ~ended_N
        left = int(going_N.sum())
        if left == 0 or t + 1 == limit:
            break
        if left <= (1 - LEAVE) * len(going_N):
            stay = going_N.nonzero()[:, 0]
            context, token_N, row_N, going_N = context.select(stay), token_N[stay], row_N[stay], going_N[stay]
        context = read_on(context, token_N[:, None])
    columns = zip(tokens_NT.tolist(), logp_NT.tolist(), length_N.tolist(), complete_N.tolist(), strict=True)
    return [Drawn(tuple(ids[:end]), tuple(logps[:end]), complete) for ids, logps, end, complete in columns]
