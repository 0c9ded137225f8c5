"""How particles get their tokens: from a decoder, one at a time."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tiltlab.models.base import Decoder
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.samplers.particles import Grown, Particles
from tiltlab.samplers.tail_moves import Decided, Responses, Tails


class Growth(Protocol):
    """Where the tokens of M particles come from.

    ends_V: bool [V], the tokens that end a response.
    block: tokens, at most, that a particle grows by in one step.
    """

    ends_V: Tensor
    block: int

    def grow(self, particles: Particles, exponent: float) -> Grown:
        """More tokens for every particle that is not finished.

        exponent: of p, in the distribution that they are to stand for afterwards.
        """
        ...

    def finished(self, particles: Particles, just_S: Tensor) -> None:
        """To be told, once they grew, which of the particles have just finished."""
        ...

    def choose(self, particles: Particles, source_N: Tensor) -> None:
        """Particle i goes on from what `source_N[i]` was.

        particles: those that are chosen.
        """
        ...

    def move(
        self,
        held: Responses,
        limit: int,
        uniform: Callable[[Tensor], Tensor],
        log_target: Callable[[Tensor, Responses], Tensor],
    ) -> tuple[Responses, list[Decided]]:
        """What particles are after their moves; see `Tails`."""
        ...


class ByToken:
    """A row of a decoder for each particle. Finished ones leave the batch, unless they are to be moved: then a bookmark
    keeps what they are, and their rows idle along.

    decoder: new, with a row for each particle.
    uniform: as in `Tails`; a chain is a particle.
    temperature: of the model, which the tails of moves are drawn from.
    moves: of each particle, each time.
    """

    block = 1

    def __init__(self, decoder: Decoder, uniform: Callable[[Tensor], Tensor], temperature: float, moves: int) -> None:
        self.ends_V, self._decoder, self._uniform = decoder.ends_V, decoder, uniform
        self._temperature, self._moves = temperature, moves
        self._particle_N = torch.arange(len(decoder.length_N), device=decoder.ends_V.device)

    def grow(self, particles: Particles, exponent: float) -> Grown:
        """One token (`Growth.grow`), at temperature 1 / exponent."""
        live_N = particles.going_M[self._particle_N]  # the others have finished, and idle along until they leave
        if not live_N.any():
            return Grown.nothing(live_N.device)
        logits_NV = self._decoder.next_logits()
        drawn = draw(logits_NV, self._numbers(live_N), 1 / exponent)
        self._decoder.append(drawn.token_N)
        tail_N = drawn.logq_N
        if self._moves and self._temperature != 1 / exponent:
            scaled_NV = logits_NV.float() / self._temperature
            tail_N = scaled_NV.log_softmax(-1).gather(-1, drawn.token_N[:, None])[:, 0]
        fields = (drawn.token_N, drawn.logp_N, drawn.logq_N, tail_N)
        m = self._particle_N[live_N]
        tokens, logp, logq, tail = (field[live_N][:, None] for field in fields)
        return Grown(m, tokens, logp, logq, tail, torch.ones_like(m))

    def finished(self, particles: Particles, just_S: Tensor) -> None:
        """Finished ones leave, several at a time, or are bookmarked (`Growth.finished`)."""
        if self._moves:
            self._decoder.bookmark(just_S)
            return
        live_N = particles.going_M[self._particle_N]
        if live_N.any() and live_N.sum() <= (1 - LEAVE) * len(live_N):
            stay = live_N.nonzero()[:, 0]
            self._decoder.select(stay)
            self._particle_N = self._particle_N[stay]

    def choose(self, particles: Particles, source_N: Tensor) -> None:
        """In the cache a copy is an index (`Growth.choose`)."""
        if self._moves:
            self._decoder.select(source_N)
            self._particle_N = torch.arange(len(source_N), device=source_N.device)
            return
        row_M = torch.full_like(particles.length_M, -1)
        row_M[self._particle_N] = torch.arange(len(self._particle_N), device=source_N.device)
        self._particle_N = particles.going_M.nonzero()[:, 0]
        self._decoder.select(row_M[source_N[self._particle_N]])

    def move(
        self,
        held: Responses,
        limit: int,
        uniform: Callable[[Tensor], Tensor],
        log_target: Callable[[Tensor, Responses], Tensor],
    ) -> tuple[Responses, list[Decided]]:
        """As chains in the same decoder (`Growth.move`)."""
        tails = Tails(self._decoder, self._moves, limit, self._temperature, uniform, log_target, leave=False)
        rows_N = torch.arange(len(held.length_R), device=held.length_R.device)
        going_N = ~self.ends_V[held.last_R]
        self._decoder.bookmark(rows_N[going_N])
        state, seen = tails.run(tails.standing_on(held))
        self._decoder.rewind(rows_N, state.held.length_R)
        return state.held, seen

    def _numbers(self, live_N: Tensor) -> Tensor:
        """A random number for each row. Those that are to be moved later on take none while they idle: how long they do
        is the others' affair."""
        if not self._moves:
            return self._uniform(self._particle_N)
        uniform_N = torch.zeros(len(live_N), dtype=torch.float64, device=live_N.device)
        uniform_N[live_N] = self._uniform(self._particle_N[live_N])
        return uniform_N
