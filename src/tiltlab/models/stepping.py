"""Decoding under somebody else's control: one token a row and step, with rows copied, dropped and sent back.

What samplers other than the plain one need, once, for every transformers model whose cache is made of keys and values:
a prompt is read once for all its rows, copying a row is an index into the cache, and a row that goes back keeps what it
has read up to there. Going back costs no forward of its own: the token that a row stands on is read again together with
the next tokens of all other rows.

Left out on purpose: choosing tokens. That is what a sampler is.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tiltlab.errors import UserError
from tiltlab.models.context import Context

TIDY_EVERY = 16
"""Steps between two removals of columns that no row needs: each copies the cache once."""


class Stepper:
    """Rows side by side, each a prompt and the tokens given to it so far. Satisfies the `Decoder` protocol.

    Every row owns the columns of the cache that `path_NT` names, in order: entry 0 is the prompt's last token, entry i
    its i-th token. A row that went back leaves columns behind, its bookmark's or nobody's, which the mask hides.
    """

    def __init__(
        self,
        read_on: Callable[[Context, Tensor], Context],
        head: Callable[[Tensor], Tensor],
        context: Context,
        last_N: Sequence[int],
        ends_V: Tensor,
        max_tokens: int,
        tell: Callable[[int], None],
    ) -> None:
        """`tell` is told at each step how many tokens were appended."""
        self._read_on, self._head, self._context, self._tell = read_on, head, context, tell
        self.ends_V = ends_V
        self._start = context.cache.get_seq_length() - 1
        size, device = len(last_N), ends_V.device
        self._tokens_NT = torch.zeros(size, max_tokens + 1, dtype=torch.long, device=device)
        self._tokens_NT[:, 0] = torch.tensor(last_N, device=device)
        self._path_NT = torch.full((size, max_tokens + 1), self._start, device=device)
        self._length_N = torch.zeros(size, dtype=torch.long, device=device)
        self._origin_N = context.position_N - 1
        self._pending = False
        self._steps = 0
        self._marked: tuple[Tensor, Tensor, Tensor] | None = None  # tokens, path and length of the bookmarks

    @property
    def length_N(self) -> Tensor:
        return self._length_N

    @property
    def tokens_NT(self) -> Tensor:
        return self._tokens_NT[:, 1:]

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        if self._pending:
            rows_N = torch.arange(len(self._length_N), device=self._length_N.device)
            self._path_NT[rows_N, self._length_N] = self._context.cache.get_seq_length()
            self._context = self._read_on(self._context, self._tokens_NT[rows_N, self._length_N][:, None])
            self._pending = False
            self._steps += 1
            if self._marked is not None and self._steps % TIDY_EVERY == 0:
                self._tidy()
        return self._head(self._context.hidden_NH).float()

    def append(self, tokens_N: Tensor) -> None:
        self._length_N = self._length_N + 1
        self._tokens_NT.scatter_(1, self._length_N[:, None], tokens_N[:, None])
        self._pending = True
        self._tell(len(tokens_N))

    def select(self, rows_N: Tensor) -> None:
        self._context = self._context.select(rows_N)
        self._tokens_NT, self._path_NT = self._tokens_NT[rows_N], self._path_NT[rows_N]
        self._length_N, self._origin_N = self._length_N[rows_N], self._origin_N[rows_N]
        if self._marked is not None:
            tokens, path, length = self._marked
            self._marked = tokens[rows_N], path[rows_N], length[rows_N]

    def bookmark(self, rows_N: Tensor) -> None:
        if self._marked is None:
            self._marked = self._tokens_NT.clone(), self._path_NT.clone(), torch.zeros_like(self._length_N)
        for marked, current in zip(self._marked, (self._tokens_NT, self._path_NT, self._length_N), strict=True):
            marked[rows_N] = current[rows_N]

    def rewind(self, rows_N: Tensor, lengths_N: Tensor) -> None:
        """Raises UserError for a model with a sliding window: there the distance between columns has a meaning."""
        if any(self._context.cache.is_sliding):
            raise UserError("this sampler goes back in a response, which a model with a sliding window does not allow")
        if not self._pending:
            raise RuntimeError("rewind comes between append and next_logits")
        if self._marked is None:
            self.bookmark(rows_N[:0])
        assert self._marked is not None
        self._tokens_NT[rows_N], self._path_NT[rows_N] = self._marked[0][rows_N], self._marked[1][rows_N]
        self._length_N = self._length_N.index_copy(0, rows_N, lengths_N)
        mask_NL = self._mask()
        mask_NL[rows_N, self._start :] = self._columns(self._path_NT[rows_N], lengths_N).to(mask_NL.dtype)
        position_N = self._context.position_N.index_copy(0, rows_N, self._origin_N[rows_N] + lengths_N)
        self._context = replace(self._context, mask_NL=mask_NL, position_N=position_N)

    # Inside

    def _mask(self) -> Tensor:
        width = self._context.cache.get_seq_length()
        mask_NL = self._context.mask_NL
        if mask_NL is None:
            return torch.ones(len(self._length_N), width, dtype=torch.long, device=self._length_N.device)
        return mask_NL

    def _columns(self, path_NT: Tensor, lengths_N: Tensor) -> Tensor:
        """Which columns from `_start` on hold the first `lengths_N` entries of each path: bool [N, width]."""
        width = self._context.cache.get_seq_length() - self._start
        held = torch.arange(path_NT.shape[1], device=path_NT.device) < lengths_N[:, None]
        columns = torch.zeros(len(path_NT), width + 1, dtype=torch.bool, device=path_NT.device)
        # entries that are not held all go to one column too many
        return columns.scatter_(1, torch.where(held, path_NT - self._start, width), True)[:, :-1]

    def _tidy(self) -> None:
        """Drop columns that belong to no path. The new columns of a row keep their order."""
        assert self._marked is not None
        tokens, path, length = self._marked
        current = self._columns(self._path_NT, self._length_N + 1)
        needed = current | self._columns(path, length + 1)
        width = int(needed.sum(1).max())
        if width > 0.8 * needed.shape[1]:
            return
        kept_NK = (~needed).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        place = needed.cumsum(1) - 1 + self._start
        self._path_NT = _moved(self._path_NT, self._length_N, place, self._start)
        self._marked = tokens, _moved(path, length, place, self._start), length
        cache = copy.copy(self._context.cache)
        cache.layers = [layer.keep_columns(self._start, kept_NK) for layer in cache.layers]
        mask_NL = torch.cat([self._mask()[:, : self._start], current.gather(1, kept_NK).long()], 1)
        self._context = replace(self._context, cache=cache, mask_NL=mask_NL)


def _moved(path_NT: Tensor, length_N: Tensor, place_NW: Tensor, start: int) -> Tensor:
    held = torch.arange(path_NT.shape[1], device=path_NT.device) <= length_N[:, None]
    moved = place_NW.gather(1, torch.where(held, path_NT - start, 0))
    return torch.where(held, moved, start)
