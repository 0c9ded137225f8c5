"""Drawing responses token by token, many rows side by side.

Shapes: _P prompts, _N rows (responses side by side), _T tokens of a response, _V tokens of the vocabulary.

Left out on purpose: top-k, top-p, penalties. Training needs the model's own distribution, and samplers build on it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiltlab.models.context import Context
from tiltlab.models.engine import Drawn, Request
from tiltlab.models.vocabulary import log_normaliser

LEAVE = 1 / 8
"""Finished rows leave the batch once they are this share of it: each leaving copies the others' keys once."""


def noise(requests_N: Sequence[Request]) -> Tensor:
    """Uniform numbers in [0, 1), float64 [N, T]: all the randomness that the rows are drawn with.

    requests_N: rows with one limit, T. The numbers of each depend on its seed, its row and its limit, so neither the
        other rows of a batch nor rows that leave it change a response.
    """
    return torch.from_numpy(np.stack([_uniforms(request) for request in requests_N]))


def _uniforms(request: Request) -> np.ndarray:
    """The row of a block of numbers that the rows of one seed have between them; no other row of it is made."""
    bits = np.random.PCG64(request.seed)
    return np.random.Generator(bits.advance(request.row * request.limit)).random(request.limit)


class Token(NamedTuple):
    """One token a row.

    token_N: int64 [N].
    logp_N: float32 [N], nats: its log-probability at temperature 1.
    logq_N: float32 [N], nats: its log-probability under the distribution that it was drawn from.
    """

    token_N: Tensor
    logp_N: Tensor
    logq_N: Tensor


def draw(logits_NV: Tensor, uniform_N: Tensor, temperature: float = 1.0) -> Token:
    """A token of each row from softmax(logits / temperature), by inverting its distribution function.

    logits_NV: [N, V], any floating dtype; computed with in float32.
    uniform_N: float64 [N], in [0, 1): where to invert it. The same number gives the same token.
    temperature: above 0.
    """
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
    """The token, int64 [N], at which each row's distribution function passes `uniform_N`; never one of probability 0.

    probs_NV: [N, V]; rows need only sum to 1 up to rounding.
    uniform_N: float64 [N], in [0, 1).
    """
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
    """Continue every row of `context` until it draws a token that ends it or reaches the noise's last column.

    head: final hidden states [N, H] -> logits [N, V].
    read_on: reads one more token a row, int64 [N, 1]; it may write into the context's cache.
    context: has read each row's prompt; not to be used afterwards.
    noise_NT: float64 [N, T], the uniform number that each token is drawn by; T is the most tokens of a response.
    temperature: above 0; log-probabilities are those at temperature 1 all the same.
    ends_V: bool [V], the tokens that end a response.
    tell: told at each step how many tokens it drew.

    Returns N responses, in the order of the rows. Rows that ended leave the batch now and then (`LEAVE`), which changes
    none of the others, as each row has noise of its own.
    """
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
