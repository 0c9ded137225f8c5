"""The vocabulary head: from final hidden states to logits, which leave it in float32 and not rounded to bfloat16.

A bf16 logit of 20 is rounded to steps of 1/8: two programs that compute the same model then differ by some hundredths
of a nat a token, which adds up over a response. A matrix product sums in float32 either way; here that is kept.

Shapes: _N positions, _H hidden, _V tokens of the vocabulary, _W of them at a time.

Left out on purpose: a float32 gradient of the hidden states. It goes back into bf16 layers and is rounded there.
"""

from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 8192
"""Tokens of the vocabulary whose weights are float32 at a time, where there is no product that gives float32 itself."""


class Head:
    """Logits of a causal LM of transformers, with what some families do after the head (Cohere, Granite, Gemma).

    base: the model, which names its own head; its config says what comes after.

    The head of a float32 model, and one that is more than a linear layer (with adapters on it, say), is called as it
    is.
    """

    def __init__(self, base: Any) -> None:
        self._layer, config = base.get_output_embeddings(), base.config
        scale, divisor = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
        self._factor = scale / divisor
        self._cap = getattr(config, "final_logit_softcapping", None)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._layer.weight.device  # type: ignore[no-any-return]

    @property
    def itemsize(self) -> int:
        """Bytes of one of its weights."""
        return self._layer.weight.element_size()  # type: ignore[no-any-return]

    def __call__(self, hidden_NH: Tensor) -> Tensor:
        """Logits [N, V]: float32 of a bf16 model too, unless its head is more than a linear layer.

        hidden_NH: [N, H], the final hidden states at N positions.
        """
        logits_NV = self._logits(hidden_NH)
        if self._factor != 1.0:  # a pass over the largest tensor there is: not for nothing
            logits_NV = logits_NV * self._factor
        return self._cap * torch.tanh(logits_NV / self._cap) if self._cap else logits_NV

    def _logits(self, hidden_NH: Tensor) -> Tensor:
        layer = self._layer
        if type(layer) is not nn.Linear or layer.weight.dtype not in (torch.bfloat16, torch.float16):
            return layer(hidden_NH)  # type: ignore[no-any-return]
        logits_NV: Tensor = _Product.apply(hidden_NH, layer.weight)  # type: ignore[no-untyped-call]
        return logits_NV if layer.bias is None else logits_NV + layer.bias.float()


class _Product(torch.autograd.Function):
    """hidden [N, H] and weights [V, H], both of 16 bits -> their product in float32, [N, V].

    The way back is that of a linear layer whose float32 gradient is rounded to 16 bits first.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_NH, weight_VH)
        if hidden_NH.is_cuda:
            return torch.mm(hidden_NH, weight_VH.t(), out_dtype=torch.float32)
        hidden_NH = hidden_NH.float()
        return torch.cat([hidden_NH @ weight_WH.float().t() for weight_WH in weight_VH.split(WIDTH)], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden_NH, weight_VH = ctx.saved_tensors
        grad_NV = grads[0].to(weight_VH.dtype)
        return (
            grad_NV @ weight_VH if ctx.needs_input_grad[0] else None,
            grad_NV.t() @ hidden_NH if ctx.needs_input_grad[1] else None,
        )
