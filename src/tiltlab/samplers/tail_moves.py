"""Metropolis-Hastings on whole responses: chains whose every proposal keeps a response up to a cut and draws the rest
again, so that responses grow and shrink.

For a move to leave a distribution as it is, the ratio must count (arXiv 2510.14901 has the idea; implementations of it
go wrong in the three below):

- both tails in full, the old and the new, each to its own end,
- how likely the cut was: one in |y| from here, one in |y'| for the way back,
- EOS like any other token: as a place to cut and as a factor.

All chains share a batch, and none waits for another: one that has finished a proposal begins its next at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tiltlab.models.base import Decoder
from tiltlab.models.decoding import LEAVE, draw


class Responses(NamedTuple):
    """R responses side by side; what stands beyond the length of one is left-overs.

    tokens_RT: int64.
    logp_RT, logq_RT: float32, nats, each token's log-probability under the model and under the proposal.
    length_R: int64.
    target_R: float64, log of the target up to its constant; minus infinity for what the distribution does not know.
    """

    tokens_RT: Tensor
    logp_RT: Tensor
    logq_RT: Tensor
    length_R: Tensor
    target_R: Tensor

    @classmethod
    def nothing(cls, size: int, limit: int, device: torch.device) -> "Responses":
        """What chains stand on before their first draw.

        size: how many.
        limit: the most tokens of a response.
        """
        blank = torch.zeros(size, limit, device=device)
        unknown_R = torch.full((size,), -torch.inf, dtype=torch.float64, device=device)
        return cls(blank.long(), blank, blank, torch.zeros(size, dtype=torch.long, device=device), unknown_R)

    def at(self, rows_S: Tensor) -> "Responses":
        """Those named, or those marked."""
        return Responses(*(field[rows_S] for field in self))

    def put(self, rows_S: Tensor, others: "Responses") -> "Responses":
        """The same but for these rows (none twice), which hold the others."""
        return Responses(*(mine.index_copy(0, rows_S, new) for mine, new in zip(self, others, strict=True)))

    @property
    def total_R(self) -> Tensor:
        """log p of each: float64, nats."""
        return between(self.logp_RT, 0, self.length_R).sum(1)

    @property
    def last_R(self) -> Tensor:
        """The last token of each."""
        return self.tokens_RT.gather(1, self.length_R[:, None] - 1)[:, 0]

    def rows(self) -> list[tuple[list[int], list[float]]]:
        """Each as (tokens, log p a token), as `LanguageModel.rollouts` takes them."""
        fields = (self.tokens_RT.tolist(), self.logp_RT.tolist(), self.length_R.tolist())
        return [(tokens[:end], logps[:end]) for tokens, logps, end in zip(*fields, strict=True)]


class Moving(NamedTuple):
    """What chains keep from token to token.

    held: the response that each chain stands on.
    cut_C: int64, how many tokens of it the proposal under way keeps.
    decided_C: int64, proposals accepted or rejected so far; -1 before the first draw, which is no proposal.
    chain_N: int64, whose proposal each row of the decoder holds.
    logp_NT, logq_NT: float32, of the tokens of each row, as in `Responses`.
    """

    held: Responses
    cut_C: Tensor
    decided_C: Tensor
    chain_N: Tensor
    logp_NT: Tensor
    logq_NT: Tensor


class Decided(NamedTuple):
    """What is seen as a proposal of each of S chains is accepted or rejected.

    number_S: which proposal of its chain it was, from 1; 0 for the first draw.
    cut_S, before_S, length_S: tokens kept, of the response stood on, and proposed.
    logp_S: float64, log p of the response that the chain stands on now.
    """

    chain_S: Tensor
    number_S: Tensor
    accepted_S: Tensor
    cut_S: Tensor
    before_S: Tensor
    length_S: Tensor
    logp_S: Tensor


@dataclass(frozen=True)
class Tails:
    """The kernel: how C chains move, all of them a token at a time.

    decoder: whose bookmarks are what the chains stand on.
    steps: proposals that a chain makes.
    limit: tokens at which a proposal is whole, even without an end.
    temperature: of the model, which tails are drawn from.
    uniform: the next random number of each of these chains (no chain twice): float64, in [0, 1).
    log_target: of proposals of these chains, by (chains [S], `Responses` whose target is not known yet): float64 [S].
    leave: whether chains that have made their steps leave the decoder, several at a time.

    What chains keep is in `Moving`, but for what the decoder has read and how far the streams have got: these two go on
    with each step, so a state is good for one step.
    """

    decoder: Decoder
    steps: int
    limit: int
    temperature: float
    uniform: Callable[[Tensor], Tensor]
    log_target: Callable[[Tensor, Responses], Tensor]
    leave: bool = True

    def drawn_first(self) -> Moving:
        """Chains that stand on nothing yet, one for each row of a new decoder: they take whatever they draw first."""
        device = self.decoder.ends_V.device
        held = Responses.nothing(len(self.decoder.length_N), self.limit, device)
        chain_C = torch.arange(len(held.length_R), device=device)
        return Moving(held, held.length_R, held.length_R - 1, chain_C, held.logp_RT, held.logq_RT)

    def standing_on(self, held: Responses) -> Moving:
        """Chains that stand on these responses, the bookmarks of the decoder's rows. Only right after `append`."""
        chain_C = torch.arange(len(held.length_R), device=held.length_R.device)
        state = Moving(held, self._cut(chain_C, held), torch.zeros_like(chain_C), chain_C, held.logp_RT, held.logq_RT)
        return self._begin(state, chain_C)

    def run(self, state: Moving) -> tuple[Moving, list[Decided]]:
        """Until all chains have made their steps."""
        seen = []
        while (state.decided_C < self.steps).any():
            state, decided = self._step(state)
            seen += [decided] if decided else []
        return state, seen

    def _step(self, state: Moving) -> tuple[Moving, Decided | None]:
        """One more token for every row; where that ends a proposal, it is decided and the next one begins."""
        going_N = state.decided_C[state.chain_N] < self.steps  # the others are done, and idle along until they leave
        uniform_N = torch.zeros(len(going_N), dtype=torch.float64, device=going_N.device)
        uniform_N[going_N] = self.uniform(state.chain_N[going_N])
        drawn = draw(self.decoder.next_logits(), uniform_N, self.temperature)
        place_N1 = self.decoder.length_N[:, None]
        state = state._replace(
            logp_NT=state.logp_NT.scatter(1, place_N1, drawn.logp_N[:, None]),
            logq_NT=state.logq_NT.scatter(1, place_N1, drawn.logq_N[:, None]),
        )
        self.decoder.append(drawn.token_N)
        over_N = self.decoder.ends_V[drawn.token_N] | (self.decoder.length_N == self.limit)
        rows = over_N.nonzero()[:, 0]
        if not len(rows):
            return state, None
        state, decided = self._decide(state, rows[going_N[rows]])
        return self._leave(self._begin(state, rows)), decided

    def _decide(self, state: Moving, rows_S: Tensor) -> tuple[Moving, Decided | None]:
        """These rows hold whole proposals: accept or reject each, then choose where to cut what its chain stands on."""
        if not len(rows_S):
            return state, None
        chain_S = state.chain_N[rows_S]
        old, cut_S, new = state.held.at(chain_S), state.cut_C[chain_S], self._proposed(state, rows_S)
        accepted_S = self.uniform(chain_S).log() < log_ratio(old, new, cut_S)
        self.decoder.bookmark(rows_S[accepted_S])
        held = state.held.put(chain_S[accepted_S], new.at(accepted_S))
        now, number_S = held.at(chain_S), state.decided_C[chain_S] + 1
        state = state._replace(
            held=held,
            cut_C=state.cut_C.index_copy(0, chain_S, self._cut(chain_S, now)),
            decided_C=state.decided_C.index_copy(0, chain_S, number_S),
        )
        return state, Decided(chain_S, number_S, accepted_S, cut_S, old.length_R, new.length_R, now.total_R)

    def _cut(self, chain_S: Tensor, held: Responses) -> Tensor:
        """Any place in the response with the same probability."""
        return (self.uniform(chain_S) * held.length_R).long()

    def _proposed(self, state: Moving, rows_S: Tensor) -> Responses:
        tokens_ST, length_S = self.decoder.tokens_NT[rows_S], self.decoder.length_N[rows_S]
        unknown_S = torch.full(length_S.shape, torch.nan, dtype=torch.float64, device=rows_S.device)
        proposed = Responses(tokens_ST, state.logp_NT[rows_S], state.logq_NT[rows_S], length_S, unknown_S)
        return proposed._replace(target_R=self.log_target(state.chain_N[rows_S], proposed))

    def _begin(self, state: Moving, rows_S: Tensor) -> Moving:
        """These rows go back to what their chains stand on, up to the cut."""
        chain_S = state.chain_N[rows_S]
        self.decoder.rewind(rows_S, state.cut_C[chain_S])
        return state._replace(
            logp_NT=state.logp_NT.index_copy(0, rows_S, state.held.logp_RT[chain_S]),
            logq_NT=state.logq_NT.index_copy(0, rows_S, state.held.logq_RT[chain_S]),
        )

    def _leave(self, state: Moving) -> Moving:
        """Chains that have made their steps leave the batch, several at a time."""
        going_N = state.decided_C[state.chain_N] < self.steps
        if not self.leave or going_N.sum() > (1 - LEAVE) * len(going_N):
            return state
        stay = going_N.nonzero()[:, 0]
        if len(stay):
            self.decoder.select(stay)
        return state._replace(chain_N=state.chain_N[stay], logp_NT=state.logp_NT[stay], logq_NT=state.logq_NT[stay])


def log_ratio(old: Responses, new: Responses, cut_R: Tensor) -> Tensor:
    """log of the Metropolis-Hastings ratio, float64 [R]: targets, tails, and the choice of the cut, there and back.

    Infinite for a chain without a state, or with one that the distribution does not know: it takes what comes.
    """
    back_R = between(old.logq_RT, cut_R, old.length_R).sum(1) - new.length_R.log()
    there_R = between(new.logq_RT, cut_R, new.length_R).sum(1) - old.length_R.log()
    return torch.where(old.target_R == -torch.inf, torch.inf, new.target_R - old.target_R + back_R - there_R)


def between(values_NT: Tensor, start: Tensor | int, end_N: Tensor) -> Tensor:
    """float64, with zeros before `start` and from `end_N` on."""
    place_T = torch.arange(values_NT.shape[1], device=values_NT.device)
    from_N1 = start[:, None] if isinstance(start, Tensor) else start
    return values_NT.double() * ((place_T >= from_N1) & (place_T < end_N[:, None]))
