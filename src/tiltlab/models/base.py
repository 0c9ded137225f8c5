"""What tiltlab asks of a language model. Samplers and the trainer see these protocols and never a concrete model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tiltlab.types import Prompt, Rollout


@dataclass(frozen=True)
class TokenLogprobs:
    """log p(y_t | x, y_<t) of every drawn token, EOS included.

    token_PGT: float32 [P, G, T], nats, 0 beyond the end of a response; has gradients unless computed under no_grad.
    mask_PGT: bool [P, G, T], True where there is a token.
    entropy_PGT: float32 [P, G, T], nats: entropy of the next-token distribution at each position, 0 beyond the end of a
        response; never has gradients.
    """

    token_PGT: Tensor
    mask_PGT: Tensor
    entropy_PGT: Tensor

    @property
    def total_PG(self) -> Tensor:
        """l(y) = log p(y | x), the sum over tokens: float32 [P, G], nats."""
        return self.token_PGT.sum(-1)

    @property
    def length_PG(self) -> Tensor:
        """Number of tokens of each response, float32 [P, G]."""
        return self.mask_PGT.sum(-1).float()

    def detach(self) -> "TokenLogprobs":
        """The same without gradients."""
        return TokenLogprobs(self.token_PGT.detach(), self.mask_PGT, self.entropy_PGT)


class Decoder(Protocol):
    """Rows side by side, each a prompt and the tokens it was given so far, one step at a time. No gradients.

    A step is `next_logits`, then `append`; `select`, `bookmark` and `rewind` come after it, before the next.

    ends_V: bool [V], the tokens that end a response. Nothing happens to a row that holds one: it goes on like any
        other, and who decodes drops it.
    """

    ends_V: Tensor

    @property
    def length_N(self) -> Tensor:
        """Tokens given to each row, those of the prompt not counted: int64 [N]."""
        ...

    @property
    def tokens_NT(self) -> Tensor:
        """The tokens given to each row: int64 [N, max_tokens], 0 or left-overs beyond its length."""
        ...

    def next_logits(self) -> Tensor:
        """The distribution of each row's next token, as logits at temperature 1: float32 [N, V]."""
        ...

    def append(self, tokens_N: Tensor) -> None:
        """One more token for each row.

        tokens_N: int64 [N]. No row may have max_tokens of them already.
        """
        ...

    def select(self, rows_N: Tensor) -> None:
        """Keep the rows named, with their bookmarks, in that order.

        rows_N: int64, numbers of rows, repeats allowed; as many rows as these are left.
        """
        ...

    def bookmark(self, rows_N: Tensor) -> None:
        """Remember what these rows hold now, to come back to. One bookmark a row: the last.

        rows_N: int64, numbers of rows.
        """
        ...

    def rewind(self, rows_N: Tensor, lengths_N: Tensor) -> None:
        """Put these rows back to the first tokens of their bookmarks, of which they then hold no more. Only right after
        `append`. The bookmarks stay; a row without one can only go back to its prompt.

        rows_N: int64, numbers of rows, none twice.
        lengths_N: int64, for each of them how many tokens, at most as many as its bookmark holds.

        Raises UserError for a model that cannot go back (one with a sliding window).
        """
        ...


class LanguageModel(Protocol):
    """Draws responses and says how likely responses are.

    Every method that takes prompts raises UserError for one that the model cannot take: an empty one, one too long for
    its context with the tokens that are to follow, chat messages where there is no chat template.
    """

    @property
    def version(self) -> int:
        """How many updates its weights have seen; each rollout is stamped with it."""
        ...

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """Token ids of a prompt.

        max_tokens: how many tokens are to follow it.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float = 1.0,
        max_tokens: int,
        seed: int,
        ignore_eos: bool = False,
    ) -> list[list[Rollout]]:
        """n responses to each prompt, `[P][n]`, drawn token by token from softmax(logits / temperature): no top-k, no
        top-p, no penalties, whatever the model's own generation settings say.

        temperature: above 0. The rollouts' logprobs are those at temperature 1 all the same.
        max_tokens: the limit on a response, EOS included; one that reaches it without an end is not complete.
        seed: the same seed gives the same response to a prompt, whatever else is in the batch.
        ignore_eos: every response runs to max_tokens and EOS is a token like any other (the fixed-length twin).
        """
        ...

    def logprobs(
        self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """The one place where log p(y | x) is computed, in float32 from the logits on. With gradients, unless under
        no_grad.

        rollouts: `[P][G]`, the same number for each prompt.
        temperature: above 0; the distribution is softmax(logits / temperature). At 1 it is the model's own.
        """
        ...

    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> Decoder:
        """N = P n rows, n for each prompt, prompt by prompt, that no token was given to yet.

        max_tokens: the most that a row will be given.
        """
        ...

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """How many rows may be held side by side, at least 1, whichever of the prompts they have.

        tokens: the most that a row holds beyond its prompt.
        """
        ...

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """The same responses with their text, and this version; complete if the last token ends a response.

        responses: each as (token ids, log-probability of each token at temperature 1, in nats).
        """
        ...

    def fingerprint(self) -> str:
        """A hash of all weights, hexadecimal: equal exactly if nothing changed."""
        ...


class Policy(LanguageModel, Protocol):
    """A language model that can learn: whoever changes its parameters says so by `updated`."""

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that training changes, by name, in a fixed order."""
        ...

    def updated(self) -> None:
        """Say that the weights have changed: `version` grows by one."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and whatever it takes to load them again.

        folder: exists. Where it cannot be written, the file system's own error is raised (OSError, SafetensorError).
        """
        ...

    def restore(self, folder: Path, version: int) -> None:
        """Read back weights that `save` wrote.

        folder: the one they were saved to.
        version: how many updates they had seen; `version` says so from then on.

        Raises UserError where they cannot be read or are another model's.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that `save` writes, about."""
        ...


def pad_tokens(rollouts: Sequence[Sequence[Rollout]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask of ragged rollouts, right-padded with 0: int64 and bool, both [P, G, T].

    rollouts: `[P][G]`, the same number for each prompt. T is the longest of them, in tokens.
    """
    flat = [rollout.tokens for group in rollouts for rollout in group]
    groups, size = len(rollouts), len(rollouts[0]) if rollouts else 0
    longest = max(map(len, flat), default=0)
    tokens = torch.tensor([list(row) + [0] * (longest - len(row)) for row in flat], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in flat])
    mask = torch.arange(longest) < lengths[:, None]
    return tokens.view(groups, size, longest), mask.view(groups, size, longest)
