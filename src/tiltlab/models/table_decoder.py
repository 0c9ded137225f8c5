"""The Decoder of a language that is a table (table.py)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tiltlab.models.table import TableLanguage


class TableDecoder:
    """Satisfies the `Decoder` protocol by keeping every row's tokens; its prefix is looked up again at each step.

    language: whose logits are read once, when this is made: later updates do not show.
    row_N: int64 [N], the number of each row's prompt.
    max_tokens: that a row may be given.
    """

    def __init__(self, language: "TableLanguage", row_N: Tensor, max_tokens: int) -> None:
        self._language, self._row_N = language, row_N
        self._logp = language._next_logprobs().detach()
        self.ends_V = torch.arange(language.symbols + 1) == language.eos
        self.tokens_NT = torch.zeros(len(row_N), max_tokens, dtype=torch.long)
        self.length_N = torch.zeros(len(row_N), dtype=torch.long)
        self._marked = self.tokens_NT.clone()

    def next_logits(self) -> Tensor:
        """The distribution of each row's next token, as log-probabilities: float32 [N, symbols + 1]."""
        prefix_N = torch.zeros_like(self._row_N)
        for t in range(int(self.length_N.max())):
            further = self._language._next_prefix(prefix_N, self.tokens_NT[:, t])
            prefix_N = torch.where(t < self.length_N, further, prefix_N)
        return self._logp[self._row_N, prefix_N]

    def append(self, tokens_N: Tensor) -> None:
        """One more token for each row: int64 [N]."""
        self.tokens_NT.scatter_(1, self.length_N[:, None], tokens_N[:, None])
        self.length_N = self.length_N + 1

    def select(self, rows_N: Tensor) -> None:
        """Keep the rows with these numbers, with their bookmarks, in that order, repeats allowed."""
        self._row_N, self.length_N = self._row_N[rows_N], self.length_N[rows_N]
        self.tokens_NT, self._marked = self.tokens_NT[rows_N], self._marked[rows_N]

    def bookmark(self, rows_N: Tensor) -> None:
        """Remember the tokens of the rows with these numbers."""
        self._marked[rows_N] = self.tokens_NT[rows_N]

    def rewind(self, rows_N: Tensor, lengths_N: Tensor) -> None:
        """Put the rows with these numbers back to the first `lengths_N` tokens of their bookmarks."""
        self.tokens_NT[rows_N] = self._marked[rows_N]
        self.length_N = self.length_N.index_copy(0, rows_N, lengths_N)
