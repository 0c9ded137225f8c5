"""Whether a transformers model can be used as it is: made ready, looked over, refused where it would go wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tiltlab.errors import UserError, brief

if TYPE_CHECKING:
    from tiltlab.models.hf import HFModel


def checkpoint_layers(module: Any) -> None:
    if any(getattr(part, "gradient_checkpointing", False) for part in module.modules()):
        return
    # newer releases of transformers call it by another name
    enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def quiet_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0  # type: ignore[assignment]  # read at run time by transformers' attention, in training mode


@torch.no_grad()
def require_right_logprobs(model: "HFModel", base: Any) -> None:
    """Score ragged random tokens both ways: through shared prompts and caches, and by the model's plain forward."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(model.codec.vocabulary, (2, 12), generator=generator).tolist()
    prompts, lengths = [rows[0][:3], rows[0][:1] + rows[1][1:6]], [4, 6]
    tokens = torch.tensor([rows[0][6:12], rows[1][6:12]], device=model.device)[:, None]
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None])[:, None].to(model.device)
    with model._ready():
        ours, _ = model._score(prompts, tokens, mask)
        for p, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            ids = torch.tensor([prompt + tokens[p, 0, :length].tolist()], device=model.device)
            logits = base(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            plain = logits.float().log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
            error = (plain - ours[p, 0, :length]).abs().max().item()
            if not error < (1e-3 if logits.dtype == torch.float32 else 0.5):
                raise ValueError(
                    f"scored through its cache, a token's log-probability is off by {error:.3g} nats from its "
                    "plain forward"
                )


@contextmanager
def refusing(name: str, base: Any) -> Iterator[None]:
    """Whatever goes wrong while a model is looked over means that it is not one for us (Mamba, RWKV, ...)."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"model {name} ({type(base).__name__}) is not supported: {brief(error) or type(error).__name__}"
        ) from error
