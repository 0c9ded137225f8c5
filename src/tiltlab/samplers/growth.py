"""How particles get their tokens: from a decoder, one at a time, or from another engine, a block at a time."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from tiltlab.models.base import Decoder
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.samplers.by_request import Requests, Rounds
from tiltlab.samplers.particles import Grown, Particles
from tiltlab.samplers.tail_moves import Decided, Responses, Tails

Uniform = Callable[[Tensor], Tensor]
"""The next random number of each of these particles (none twice): float64, in [0, 1)."""


class Growth(Protocol):
    """Where the tokens of M particles come from.

    device: that they are on.
    block: tokens, at most, that a particle grows by in one step.
    """

    device: torch.device
    block: int

    @property
    def rescored(self) -> int:
        """Tokens read again so far."""
        ...

    @property
    def notes(self) -> dict[str, Any]:
        """What is to be noted of it at the end (`Info.notes`)."""
        ...

    @property
    def doubts(self) -> list[str]:
        """What speaks against the samples (`Info.warnings`)."""
        ...

    def ended(self, token_S: Tensor) -> Tensor:
        """Which of these tokens end a response: bool [S]."""
        ...

    def grow(self, particles: Particles, temperature: float, uniform: Uniform) -> Grown:
        """More tokens for every particle that is not finished, drawn at this temperature."""
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
        place_N: Tensor,
        limit: int,
        uniform: Uniform,
        log_target: Callable[[Tensor, Responses], Tensor],
    ) -> tuple[Responses, list[Decided]]:
        """What particles are after their moves; see `Tails`.

        place_N: int64, which of all particles they are.
        uniform: of those that move, by their numbers among them.
        """
        ...


class ByToken:
    """A row of a decoder for each particle. Finished ones leave the batch, unless they are to be moved: then a bookmark
    keeps what they are, and their rows idle along.

    decoder: new, with a row for each particle.
    temperature: of the model, which the tails of moves are drawn from.
    moves: of each particle, each time.
    """

    block = 1

    def __init__(self, decoder: Decoder, temperature: float, moves: int) -> None:
        self._decoder, self._temperature, self._moves = decoder, temperature, moves
        self.device, self.rescored = decoder.ends_V.device, 0
        self.notes: dict[str, Any] = {}
        self.doubts: list[str] = []
        self._particle_N = torch.arange(len(decoder.length_N), device=self.device)

    def ended(self, token_S: Tensor) -> Tensor:
        """As the decoder knows (`Growth.ended`)."""
        return self._decoder.ends_V[token_S]

    def grow(self, particles: Particles, temperature: float, uniform: Uniform) -> Grown:
        """One token (`Growth.grow`)."""
        live_N = particles.going_M[self._particle_N]  # the others have finished, and idle along until they leave
        if not live_N.any():
            return Grown.nothing(live_N.device)
        logits_NV = self._decoder.next_logits()
        drawn = draw(logits_NV, self._numbers(live_N, uniform), temperature)
        self._decoder.append(drawn.token_N)
        tail_N = drawn.logq_N
        if self._moves and self._temperature != temperature:
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
        place_N: Tensor,
        limit: int,
        uniform: Uniform,
        log_target: Callable[[Tensor, Responses], Tensor],
    ) -> tuple[Responses, list[Decided]]:
        """As chains in the same decoder (`Growth.move`)."""
        tails = Tails(self._decoder, self._moves, limit, self._temperature, uniform, log_target, leave=False)
        rows_N = torch.arange(len(place_N), device=self.device)
        self._decoder.bookmark(rows_N[~self.ended(held.last_R)])
        state, seen = tails.run(tails.standing_on(held))
        self._decoder.rewind(rows_N, state.held.length_R)
        self.rescored += sum(len(step.chain_S) for step in seen)  # the token before the cut is read again
        return state.held, seen

    def _numbers(self, live_N: Tensor, uniform: Uniform) -> Tensor:
        """A random number for each row. Those that are to be moved later on take none while they idle: how long they do
        is the others' affair."""
        if not self._moves:
            return uniform(self._particle_N)
        uniform_N = torch.zeros(len(live_N), dtype=torch.float64, device=live_N.device)
        uniform_N[live_N] = uniform(self._particle_N[live_N])
        return uniform_N


class ByBlock:
    """Up to `block` tokens more for each particle, by a request to the engine that draws for the model.

    requests: for as many chains as there are particles.
    temperature, moves: as in `ByToken`.
    """

    device = torch.device("cpu")

    def __init__(self, requests: Requests, block: int, temperature: float, moves: int) -> None:
        self.block, self._requests, self._temperature, self._moves = block, requests, temperature, moves

    @property
    def rescored(self) -> int:
        """All that was drawn, and what it goes on from, once or at two temperatures (`Growth.rescored`)."""
        return self._requests.rescored

    @property
    def notes(self) -> dict[str, Any]:
        """How far the engine is off the model (`Growth.notes`)."""
        return {"mismatch": [self._requests.mismatch]}

    @property
    def doubts(self) -> list[str]:
        """As `Requests.doubts`."""
        return self._requests.doubts("PowerSMC", self._temperature)

    def ended(self, token_S: Tensor) -> Tensor:
        """As the model says (`Growth.ended`)."""
        return self._requests.ended(token_S)

    def grow(self, particles: Particles, temperature: float, uniform: Uniform) -> Grown:
        """A block of tokens (`Growth.grow`); the randomness is that of the requests."""
        m = particles.going_M.nonzero()[:, 0]
        if not len(m):
            return Grown.nothing(self.device)
        held, start_S = particles.responses(1).at(m), particles.length_M[m]
        limit = min(int(start_S[0]) + self.block, self._requests.limit)
        drawn = self._requests.drawn_on(m, held, start_S, limit, temperature)
        tail_ST = drawn.logq_RT
        if self._moves and temperature != self._temperature:
            tail_ST = self._requests.logq(m, drawn, self._temperature)
        block = slice(int(start_S[0]), limit)
        fields = (drawn.tokens_RT, drawn.logp_RT, drawn.logq_RT, tail_ST)
        tokens_SL, logp_SL, logq_SL, tail_SL = (field[:, block] for field in fields)
        return Grown(m, tokens_SL, logp_SL, logq_SL, tail_SL, drawn.length_R - start_S)

    def finished(self, particles: Particles, just_S: Tensor) -> None:
        """Nothing is held for them."""

    def choose(self, particles: Particles, source_N: Tensor) -> None:
        """Nothing is held for them: a request says what it goes on from."""

    def move(
        self,
        held: Responses,
        place_N: Tensor,
        limit: int,
        uniform: Uniform,
        log_target: Callable[[Tensor, Responses], Tensor],
    ) -> tuple[Responses, list[Decided]]:
        """By rounds of requests (`Growth.move`)."""
        rounds = Rounds(self._requests, self._moves, self._temperature, uniform, log_target)
        return rounds.moved(held, place_N, limit)
