"""The particles of sequential Monte Carlo, and how they are chosen.

Shapes: _M particles, finished ones too; _S some of them; _T tokens of a response, _L those of one step's growth.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tiltlab.samplers.tail_moves import Responses, between


class Grown(NamedTuple):
    """What S particles grew by: at most L tokens each, as many as `count_S` says.

    particle_S: int64, which ones: all that are not finished.
    tokens_SL: int64.
    logp_SL: float32, nats, under the model.
    logq_SL: float32, nats, under what they were drawn from.
    tail_SL: float32, nats, under what the tails of moves are drawn from.
    count_S: int64, at least 1.
    """

    particle_S: Tensor
    tokens_SL: Tensor
    logp_SL: Tensor
    logq_SL: Tensor
    tail_SL: Tensor
    count_S: Tensor

    @classmethod
    def nothing(cls, device: torch.device) -> "Grown":
        """Where all are finished."""
        none_S, blank_SL = torch.empty(0, dtype=torch.long, device=device), torch.empty(0, 1, device=device)
        return cls(none_S, blank_SL.long(), blank_SL, blank_SL, blank_SL, none_S)

    @property
    def logp_S(self) -> Tensor:
        """log p of what each grew by: float64."""
        return between(self.logp_SL, 0, self.count_S).sum(1)

    @property
    def logq_S(self) -> Tensor:
        """The same under what it was drawn from."""
        return between(self.logq_SL, 0, self.count_S).sum(1)


class Particles(NamedTuple):
    """M particles side by side. Those that are not finished have as many tokens as each other.

    tokens_MT: int64.
    token_logp_MT: float32, nats, at temperature 1.
    tail_MT: float32, nats, under what the tails of moves are drawn from.
    length_M: int64.
    going_M: bool, not finished.
    logp_M: float64, nats, of all tokens so far under the model.
    gain_M: float64, what the log target of a finished one has beyond the power of p: its reward; 0 for others.
    ancestor_M: int64, which particle of the first K in its population it comes from, or of those begun anew since.
    """

    tokens_MT: Tensor
    token_logp_MT: Tensor
    tail_MT: Tensor
    length_M: Tensor
    going_M: Tensor
    logp_M: Tensor
    gain_M: Tensor
    ancestor_M: Tensor

    @classmethod
    def empty(cls, size: int, limit: int, K: int, device: torch.device) -> "Particles":
        """Particles without a token.

        size: how many, in populations of K.
        limit: the most tokens that each may have.
        """
        place_M, zero_M = torch.arange(size, device=device), torch.zeros(size, dtype=torch.float64, device=device)
        blank_MT = torch.zeros(size, limit, device=device)
        going_M = torch.ones_like(place_M, dtype=torch.bool)
        return cls(blank_MT.long(), blank_MT, blank_MT, torch.zeros_like(place_M), going_M, zero_M, zero_M, place_M % K)

    def at(self, source_M: Tensor) -> "Particles":
        """Those named, in that order, repeats allowed."""
        return Particles(*(field[source_M] for field in self))

    def longer(self, grown: Grown, ended_S: Tensor) -> "Particles":
        """With the tokens that they grew by.

        ended_S: bool, which of those that grew are now finished.
        """
        m, count_S = grown.particle_S, grown.count_S
        given = torch.arange(grown.tokens_SL.shape[1], device=m.device) < count_S[:, None]
        s, column = given.nonzero(as_tuple=True)
        place = (m[s], self.length_M[m[s]] + column)
        return self._replace(
            tokens_MT=self.tokens_MT.index_put(place, grown.tokens_SL[s, column]),
            token_logp_MT=self.token_logp_MT.index_put(place, grown.logp_SL[s, column]),
            tail_MT=self.tail_MT.index_put(place, grown.tail_SL[s, column]),
            length_M=self.length_M.index_add(0, m, count_S),
            going_M=self.going_M.index_fill(0, m[ended_S], False),
            logp_M=self.logp_M.index_add(0, m, grown.logp_S),
        )

    def responses(self, exponent: float) -> Responses:
        """As chains stand on them, for whom the target is p^exponent and what finished ones gain."""
        target_M = exponent * self.logp_M + self.gain_M
        return Responses(self.tokens_MT, self.token_logp_MT, self.tail_MT, self.length_M, target_M)

    def moved(self, held: Responses, ended_M: Tensor, exponent: float, ancestor_M: Tensor) -> "Particles":
        """What they are once chains that stood on `responses(exponent)` have moved."""
        logp_M = held.total_R
        gain_M = torch.where(ended_M, held.target_R - exponent * logp_M, 0.0)
        return Particles(
            held.tokens_RT, held.logp_RT, held.logq_RT, held.length_R, ~ended_M, logp_M, gain_M, ancestor_M
        )


def systematic(share_BK: Tensor, uniform_B: Tensor, count: int) -> Tensor:
    """Which particles to copy: `count` evenly spaced looks at the running total of the weights, all shifted by the same
    random number (Kitagawa, 1996). Each is taken count x share times, rounded up or down.

    share_BK: [B, K], weights in any unit.
    uniform_B: [B], from [0, 1).
    count: looks, for each population.

    Returns int64 [B, count].
    """
    looks_BK = (torch.arange(count, device=share_BK.device) + uniform_B[:, None]) / count
    total_BK = share_BK.cumsum(1)
    total_BK = total_BK / total_BK[:, -1:]
    return torch.searchsorted(total_BK, looks_BK, right=True).clamp(max=share_BK.shape[1] - 1)
