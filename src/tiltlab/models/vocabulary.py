"""From final hidden states to log-probabilities of chosen tokens: the widest and most memory-hungry step of a forward.

Everything from the logits on is float32, whatever the weights are: a bf16 log-softmax alone is off by up to 0.4 nats
over 16 tokens.

Shapes: _N positions that predict a token, _H hidden, _V tokens of the vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]
"""Hidden states [N, H] -> logits [N, V]."""

CHUNK_BYTES = 1 << 29
"""One call makes no more logits than this at a time: beyond it they are made, used and dropped chunk by chunk, and made
again in the backward pass. What a call keeps for its backward adds up over the calls of a micro-batch."""


def chosen_logprobs(head: Head, hidden_NH: Tensor, tokens_N: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of the distribution it was chosen from: both float32 [N], in nats.

    head: hidden states -> logits; called again in the backward pass where there is more than one chunk.
    hidden_NH: [N, H], any floating dtype.
    tokens_N: int64 [N].
    vocabulary: V, the width of the head's logits.

    Only the log-probability has gradients, and its backward pass runs once: it writes over what it kept.
    """
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    if len(hidden_NH) <= rows:
        return _chunk(head, hidden_NH, tokens_N)
    remake = torch.is_grad_enabled() and hidden_NH.requires_grad
    chunks = [
        checkpoint(_chunk, head, hidden, tokens, use_reentrant=False) if remake else _chunk(head, hidden, tokens)
        for hidden, tokens in zip(hidden_NH.split(rows), tokens_N.split(rows), strict=True)
    ]
    logps, entropies = zip(*chunks, strict=True)
    return torch.cat(logps), torch.cat(entropies)


def _chunk(head: Head, hidden_NH: Tensor, tokens_N: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(hidden_NH).float()
    logp, entropy = _Chosen.apply(logits, tokens_N)  # type: ignore[no-untyped-call]
    return logp, entropy


def log_normaliser(logits_NV: Tensor, probs_NV: Tensor) -> Tensor:
    """log of the sum of exp(logits), float32 [N], from their softmax without another exponential: the log of the
    likeliest token's probability (at least 1 / V) is exact to rounding, which that of an unlikely one is not.

    logits_NV, probs_NV: float32 [N, V], the second being the softmax of the first.
    """
    best_N1 = probs_NV.max(-1, keepdim=True)
    return (logits_NV.gather(-1, best_N1.indices) - best_N1.values.log())[:, 0]


class _Chosen(torch.autograd.Function):
    """logits -> (log-softmax at the chosen token, entropy of the softmax), in as few passes over [N, V] as will do."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, tokens_N: Tensor) -> tuple[Tensor, Tensor]:
        probs_NV = logits_NV.softmax(-1)
        normaliser_N = log_normaliser(logits_NV, probs_NV)
        chosen_N = logits_NV.gather(-1, tokens_N[:, None])[:, 0] - normaliser_N
        entropy_N = normaliser_N - torch.einsum("nv,nv->n", probs_NV, logits_NV)
        if entropy_N.isnan().any():  # 0 * -inf: tokens that some model rules out
            entropy_N = normaliser_N - (probs_NV * logits_NV).nan_to_num(0.0).sum(-1)
        ctx.save_for_backward(probs_NV, tokens_N)
        ctx.mark_non_differentiable(entropy_N)
        return chosen_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        probs_NV, tokens_N = ctx.saved_tensors
        grad_N1 = grads[0][:, None]
        grad_NV = probs_NV.mul_(-grad_N1)  # in place: [N, V] is the largest tensor there is, and this was its last use
        return grad_NV.scatter_add_(1, tokens_N[:, None], grad_N1), None  # d log p_chosen / d logits = onehot - p
