"""Decoding under somebody else's control: one token a row and step, with rows copied, dropped and sent back.

What samplers other than the plain one need, once, for every transformers model whose cache is made of keys and values:
a prompt is read once for all its rows, copying a row is an index into the cache, and a row that goes back keeps what it
has read up to there. Going back costs no forward of its own: the token that a row stands on is read again together with
the next tokens of all other rows.

Shapes: _N rows, _T entries of a row (its prompt's last token, then its own), _L columns of the cache, _W columns of it
from the prompt's last token on, _K columns that are kept, _V tokens of the vocabulary, _H hidden.

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

    A row is a list of entries: entry 0 is the prompt's last token, entry i its i-th token. Entry i of row r stands in
    column `_path_NT[r, i]` of the cache, the same for keys and values of all layers. Rows share columns' numbers, never
    their contents, and after a row went back its path skips the columns that it left behind.

    True between two calls:

    - `_tokens_NT[r, : length + 1]` are the row's entries; what stands beyond is left-overs.
    - All rows have read all of their entries, or (`_pending`, from `append` to `next_logits`) all but the last. So one
      forward reads one token of every row, and a row that goes back can do so only then: its last entry, which it has
      read before, is read again in a new column. That is simpler than keeping hidden states, and costs no forward.
    - `_path_NT` is right for each entry that was read. The column of a pending one is not known before it is read.
    - The mask shows a row the columns of its prompt and those of the entries that it has read, no others. It is None
      as long as that is every column, which it is until rows are padded or go back.
    - `position_N` of the context is `_origin_N` (the position of entry 0) plus the number of entries read: positions
      follow the row's own entries and not the columns, so skipped columns change nothing that a row reads.
    - Columns before `_start`, the one that entry 0 was first read in, are the prompts' and are never moved.
    - A bookmark is a copy of a row's tokens, path and length. Its columns are needed as long as it stands.
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
        """
        read_on: reads one more token a row, int64 [N, 1]; it may write into the context's cache.
        head: the final hidden states [N, H] -> logits [N, V].
        context: has read the prompt of each row.
        last_N: the last token of each prompt.
        ends_V: bool [V], the tokens that end a response.
        max_tokens: that a row may be given.
        tell: told at each step how many tokens were appended.
        """
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
        """Tokens of each row, without entry 0: int64 [N]."""
        return self._length_N

    @property
    def tokens_NT(self) -> Tensor:
        """Each row's tokens, without entry 0: int64 [N, max_tokens].

        A view, which changes with the next call: to be read, not written.
        """
        return self._tokens_NT[:, 1:]

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """The distribution of each row's next token, as logits at temperature 1: float32 [N, V].

        Reads the pending entry of every row, in one new column; asked again, it reads nothing.
        """
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
        """One more token for each row, pending from now on.

        tokens_N: int64 [N]. No row may have max_tokens of them already.

        To be called once between two `next_logits`: a second call would leave an entry that is never read.
        """
        self._length_N = self._length_N + 1
        self._tokens_NT.scatter_(1, self._length_N[:, None], tokens_N[:, None])
        self._pending = True
        self._tell(len(tokens_N))

    def select(self, rows_N: Tensor) -> None:
        """Keep the rows named, with their bookmarks, in that order.

        rows_N: int64, numbers of rows, repeats allowed; as many rows as these are left.

        Copies the cache once. Columns keep their numbers, so paths and bookmarks are right for the copies too.
        """
        self._context = self._context.select(rows_N)
        self._tokens_NT, self._path_NT = self._tokens_NT[rows_N], self._path_NT[rows_N]
        self._length_N, self._origin_N = self._length_N[rows_N], self._origin_N[rows_N]
        if self._marked is not None:
            tokens, path, length = self._marked
            self._marked = tokens[rows_N], path[rows_N], length[rows_N]

    def bookmark(self, rows_N: Tensor) -> None:
        """Remember what these rows hold now, to come back to. One bookmark a row: the last.

        rows_N: int64, numbers of rows.

        A row that never had one has the bookmark of an empty response. One made while an entry is pending has no column
        for that entry, and needs none: `rewind` reads the entry that it goes back to again.
        """
        if self._marked is None:
            self._marked = self._tokens_NT.clone(), self._path_NT.clone(), torch.zeros_like(self._length_N)
        for marked, current in zip(self._marked, (self._tokens_NT, self._path_NT, self._length_N), strict=True):
            marked[rows_N] = current[rows_N]

    def rewind(self, rows_N: Tensor, lengths_N: Tensor) -> None:
        """Put these rows back to the first tokens of their bookmarks. Only right after `append`.

        rows_N: int64, numbers of rows, none twice.
        lengths_N: int64, for each of them how many tokens it keeps, at most as many as its bookmark holds.

        Afterwards entry `lengths_N` of each of these rows is its last and is pending; those before it are shown from
        the columns that the bookmark has them in. The bookmark stays.

        Raises UserError for a model with a sliding window, where the distance between columns has a meaning, and
        RuntimeError where nothing is pending.
        """
        if any(self._context.cache.is_sliding):
            raise UserError("this sampler goes back in a response, which a model with a sliding window does not allow")
        if not self._pending:
            raise RuntimeError("rewind comes between append and next_logits")
        if self._marked is None:
            self.bookmark(rows_N[:0])
        assert self._marked is not None
        tokens_NT, path_NT, _ = self._marked
        self._tokens_NT[rows_N], self._path_NT[rows_N] = tokens_NT[rows_N], path_NT[rows_N]
        self._length_N = self._length_N.index_copy(0, rows_N, lengths_N)
        mask_NL = self._mask()
        mask_NL[rows_N, self._start :] = self._columns(self._path_NT[rows_N], lengths_N).to(mask_NL.dtype)
        position_N = self._context.position_N.index_copy(0, rows_N, self._origin_N[rows_N] + lengths_N)
        self._context = replace(self._context, mask_NL=mask_NL, position_N=position_N)

    # Inside

    def _mask(self) -> Tensor:
        """The mask written out where it is None: int64 [N, L]."""
        width = self._context.cache.get_seq_length()
        mask_NL = self._context.mask_NL
        if mask_NL is None:
            return torch.ones(len(self._length_N), width, dtype=torch.long, device=self._length_N.device)
        return mask_NL

    def _columns(self, path_NT: Tensor, lengths_N: Tensor) -> Tensor:
        """Which columns from `_start` on hold the first `lengths_N` entries of each path: bool [N, W]."""
        width = self._context.cache.get_seq_length() - self._start
        held_NT = torch.arange(path_NT.shape[1], device=path_NT.device) < lengths_N[:, None]
        columns_NW = torch.zeros(len(path_NT), width + 1, dtype=torch.bool, device=path_NT.device)
        # entries that are not held all go to one column too many
        return columns_NW.scatter_(1, torch.where(held_NT, path_NT - self._start, width), True)[:, :-1]

    def _tidy(self) -> None:
        """Drop columns that belong to no path, where that makes the cache a fifth narrower or more.

        Only right after a read, while nothing is pending: then the current paths name a column for every entry. As many
        columns stay as the row with most of them needs, and each row chooses its own. They keep their order; a row that
        needs fewer is given others behind them, which the mask hides.
        """
        assert self._marked is not None
        tokens_NT, path_NT, length_N = self._marked
        current_NW = self._columns(self._path_NT, self._length_N + 1)
        needed_NW = current_NW | self._columns(path_NT, length_N + 1)
        width = int(needed_NW.sum(1).max())
        if width > 0.8 * needed_NW.shape[1]:
            return
        kept_NK = (~needed_NW).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        place_NW = needed_NW.cumsum(1) - 1 + self._start  # the new column of each that is needed
        self._path_NT = _moved(self._path_NT, self._length_N, place_NW, self._start)
        self._marked = tokens_NT, _moved(path_NT, length_N, place_NW, self._start), length_N
        cache = copy.copy(self._context.cache)
        cache.layers = [layer.keep_columns(self._start, kept_NK) for layer in cache.layers]
        mask_NL = torch.cat([self._mask()[:, : self._start], current_NW.gather(1, kept_NK).long()], 1)
        self._context = replace(self._context, cache=cache, mask_NL=mask_NL)


def _moved(path_NT: Tensor, length_N: Tensor, place_NW: Tensor, start: int) -> Tensor:
    """The paths after each column `start` + w of row r has moved to `place_NW[r, w]`. Left-overs beyond a path's length
    become `start`, so that no path ever names a column that is not there."""
    held_NT = torch.arange(path_NT.shape[1], device=path_NT.device) <= length_N[:, None]
    moved_NT = place_NW.gather(1, torch.where(held_NT, path_NT - start, 0))
    return torch.where(held_NT, moved_NT, start)
