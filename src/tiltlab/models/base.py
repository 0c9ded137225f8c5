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

    token_PGT: [P, G, T] float32, nats, 0 beyond the end of a response; carries gradients unless computed under no_grad.
    mask_PGT: [P, G, T] bool, True where there is a token.
    entropy_PGT: [P, G, T] float32, entropy of the next-token law at each position in nats; never carries gradients.
    """

    token_PGT: Tensor
    mask_PGT: Tensor
    entropy_PGT: Tensor

    @property
    def total_PG(self) -> Tensor:
        """l(y) = log p(y | x): the sum over tokens, float32 [P, G]."""
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

    ends_V: bool [V], the tokens that end a response. length_N: int64 [N], tokens of each row. tokens_NT: int64
    [N, max_tokens], 0 or left-overs beyond a row's length.
    """

    ends_V: Tensor

    @property
    def length_N(self) -> Tensor: ...

    @property
    def tokens_NT(self) -> Tensor: ...

    def next_logits(self) -> Tensor:
        """The law of each row's next token, as float32 logits [N, V] at temperature 1."""
        ...

    def append(self, tokens_N: Tensor) -> None:
        """One more token for each row."""
        ...

    def select(self, rows_N: Tensor) -> None:
        """Keep the rows named, in that order, repeats allowed."""
        ...

    def bookmark(self, rows_N: Tensor) -> None:
        """Remember what these rows hold now, to come back to."""
        ...

    def rewind(self, rows_N: Tensor, lengths_N: Tensor) -> None:
        """Put these rows back to the first `lengths_N` tokens of their bookmarks. Only right after `append`."""
        ...


class LanguageModel(Protocol):
    """Draws responses and says how likely responses are. `version` counts the updates it has seen."""

    @property
    def version(self) -> int: ...

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
        """n responses to each prompt, drawn token by token from softmax(logits / temperature): no top-k, no top-p, no
        penalties, whatever the model's own generation settings say. The same seed gives the same responses.

        ignore_eos: every response runs to max_tokens and EOS is a token like any other (the fixed-length twin).
        """
        ...

    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]]) -> TokenLogprobs:
        """The one place where log p(y | x) is computed: at temperature 1, in float32 from the logits on."""
        ...

    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> Decoder:
        """n rows for each prompt, prompt by prompt, that no token was given to yet."""
        ...

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """How many rows with `tokens` tokens beyond the prompt may be held side by side."""
        ...

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """Responses given as (tokens, log-probabilities at temperature 1) with their text; complete if the last token
        ends one."""
        ...

    def fingerprint(self) -> str:
        """A hash of all weights: equal exactly if nothing changed."""
        ...


class Policy(LanguageModel, Protocol):
    """A language model that can learn."""

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that training changes, by name, in a fixed order."""
        ...

    def updated(self) -> None:
        """Say that the weights have changed: `version` grows by one."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors) and whatever it takes to load them again."""
        ...

    def restore(self, folder: Path, version: int) -> None:
        """Read back weights that `save` wrote, as they were after `version` updates."""
        ...


def pad_tokens(rollouts: Sequence[Sequence[Rollout]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask of ragged rollouts, right-padded with 0: int64 and bool, both [P, G, T]."""
    flat = [rollout.tokens for group in rollouts for rollout in group]
    groups, size = len(rollouts), len(rollouts[0]) if rollouts else 0
    longest = max(map(len, flat), default=0)
    tokens = torch.tensor([list(row) + [0] * (longest - len(row)) for row in flat], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in flat])
    mask = torch.arange(longest) < lengths[:, None]
    return tokens.view(groups, size, longest), mask.view(groups, size, longest)
