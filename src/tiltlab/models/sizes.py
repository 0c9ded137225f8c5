"""What a token takes in memory, by arithmetic from a model's config alone, and how many tokens fit.

For decoders as transformers builds them: attention with grouped keys, a gated MLP, two norms a layer. Others are
reckoned as if they were such, roughly; who runs out of memory all the same goes on with less (`HFModel.draw`,
training/room.py).

Left out on purpose: the weights themselves, which whoever holds them can count.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from tiltlab.models.context import GrowingLayer
from tiltlab.models.vocabulary import CHUNK_BYTES

ON_CPU = 32768
"""Tokens that one forward without gradients may hold on CPU: memory is large there, and more rows gain little."""

MARGIN = 0.15
"""Of the free memory, left alone: blocks that the allocator cannot join, workspaces of matrix products, masks, prompts
being read. That is more than any of them was reckoned to take, and is checked nowhere but by running."""

SHORTEST = 256
"""Tokens of a row, prompt included, that logits are reckoned by: each row has some of its own, however short it is."""

LOGITS = 24
"""Bytes of one row and token of the vocabulary while it is drawn from: logits, softmax, its sums in float64, and one
copy."""

HEAD = 4 * CHUNK_BYTES
"""Bytes that the vocabulary head has in use while responses are scored: logits, softmax, and copies of both."""


class Fit(NamedTuple):
    """How many tokens (rows x their longest possible length) one forward without gradients may hold.

    drawing: rows that are being drawn hold their keys and values, twice where some leave, and little else.
    scoring: rows that are scored hold keys and values once, and the activations of one layer, but of all their tokens.
    """

    drawing: int
    scoring: int


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder, as far as memory goes.

    layers, hidden, inner: of the body; `inner` is the MLP's width, of all experts that a token goes through.
    heads, kv_heads, head: of attention; `head` is the size of one.
    vocabulary: tokens that it knows.
    itemsize: bytes of a number, 2 for bfloat16.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    itemsize: int

    @classmethod
    def of(cls, settings: Any, itemsize: int) -> "Sizes":
        """From a config of transformers."""
        text = settings.get_text_config()
        hidden, heads = text.hidden_size, text.num_attention_heads
        experts = getattr(text, "num_experts_per_tok", None) or 1
        of_experts = experts * (getattr(text, "moe_intermediate_size", None) or 0)
        inner = of_experts or experts * (getattr(text, "intermediate_size", None) or 4 * hidden)
        return cls(
            layers=text.num_hidden_layers,
            hidden=hidden,
            inner=inner,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head=getattr(text, "head_dim", None) or hidden // heads,
            vocabulary=text.vocab_size,
            itemsize=itemsize,
        )

    @property
    def kv(self) -> int:
        """Bytes of keys and values, a token."""
        return 2 * self.layers * self.kv_heads * self.head * self.itemsize

    @property
    def layer(self) -> int:
        """Bytes that one layer keeps for its backward pass, a token.

        Two norms keep their input in float32, what they made of it, and their output; attention its queries, keys,
        values (once more in the cache) and output, and, in families that have them, norms of queries and keys; the MLP
        four tensors of its width. Without norms of queries and keys it is a tenth less.
        """
        norms = 2 * self.hidden * (4 + 2 * self.itemsize)
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        attention = (2 * queries + 4 * keys) * self.itemsize + (queries + keys) * (4 + self.itemsize)
        return norms + attention + 4 * self.inner * self.itemsize

    def activations(self, *, checkpointing: bool) -> int:
        """Bytes that are kept from the forward to the backward pass, a token. With checkpointing that is the input of
        each layer, and all of the layer that is being read again."""
        return self.layers * self.hidden * self.itemsize + self.layer if checkpointing else self.layers * self.layer

    def fit(self, free: int) -> Fit:
        """How many tokens fit `free` bytes; at least 1."""
        usable = (1 - MARGIN) * free
        drawing = 2 * (1 + GrowingLayer.ROOM) * self.kv + LOGITS * self.vocabulary / SHORTEST
        scoring = self.kv + self.layer + self.hidden * self.itemsize
        return Fit(max(1, int(usable / drawing)), max(1, int((usable - HEAD) / scoring)))

    def needs_checkpointing(self, tokens: int, free: int) -> bool:
        """Whether the activations of so many tokens, kept for the backward pass, do not fit `free` bytes."""
        return tokens * self.activations(checkpointing=False) + HEAD > (1 - MARGIN) * free
