"""Sequential Monte Carlo for p^alpha, or p^alpha exp(r / beta): a population that grows token by token, in step.

Every particle draws its next token from the base at temperature 1 / alpha, is weighed by how far that distribution is
from p^alpha, and where a few come to hold most of the weight the population is drawn anew from itself (sequential
importance resampling: Del Moral, Doucet and Jasra, 2006; for p^alpha of a language model: arXiv 2602.10273).

Left out on purpose: moves after resampling, and look-ahead: the weight of a prefix says nothing of what can follow it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tiltlab.models.base import Decoder, LanguageModel
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, in_turns, stopwatch
from tiltlab.types import Prompt, Rollout


@dataclass(frozen=True)
class PowerSMC:
    """Targets p^alpha / Z or, with `beta`, the tilted distribution p^alpha exp(r / beta) / Z, over complete responses
    within the token limit: exactly as `particles` grows, approximately before; its estimate of Z is unbiased for any
    number.

    alpha: exponent of p, above 0.
    particles: of a population, at least 1.
    beta: weight of the KL, above 0; None leaves the reward out.
    threshold: a population resamples where its effective size falls below this share of its particles.
    ramp: tokens over which the exponent rises from 1 to alpha; 0 is alpha from the start.

    n responses take ceil(n / particles) populations, each of which gives its particles, drawn from their weights
    (systematic resampling): those of one population are related, and repeat where few ancestors survive. A finished
    particle keeps its weight; the reward enters it when it finishes. Rewards of NaN, and responses that hit the token
    limit, weigh nothing.
    """

    alpha: float = 4.0
    particles: int = 16
    beta: float | None = None
    threshold: float = 0.5
    ramp: int = 0

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if self.particles < 1:
            raise ValueError(f"particles must be at least 1, got {self.particles}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if self.ramp < 0:
            raise ValueError(f"ramp must not be negative, got {self.ramp}")
        assert self.objective.kl  # raises ValueError for a beta that is not above 0

    @property
    def objective(self) -> Objective:
        """What training would aim at, with the same log_target."""
        return tempered(self.alpha) if self.beta is None else tilted(self.beta, self.alpha)

    def exponent(self, tokens: int) -> float:
        """The exponent of p in the distribution that a population stands for after so many tokens."""
        return self.alpha if tokens >= self.ramp else 1 + (self.alpha - 1) * tokens / self.ramp

    def drawn(self, n: int) -> int:
        """One for each particle: n rounded up to whole populations."""
        return math.ceil(n / self.particles) * self.particles

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        grade_fn: GradeFn | None = None,
    ) -> Samples:
        """n particles of the populations of each prompt (see `Sampler`); the notes hold the estimate of log Z.

        Raises ValueError for a beta without a grade_fn.
        """
        if self.beta is not None and grade_fn is None:
            raise ValueError("sampling with a reward needs a grade_fn")
        populations = math.ceil(n / self.particles)
        rows = populations * (self.particles + 1)  # a stream for each particle, and one for each population
        streams = Streams(seed, prompts, rows)

        def run(some: Sequence[Prompt], first: int) -> Samples:
            decoder = model.decoder(some, n=populations * self.particles, max_tokens=max_tokens)
            return _Populations(self, model, decoder, streams, grade_fn, first, n, populations, max_tokens).run()

        return in_turns(run, prompts, max(1, model.capacity(prompts, max_tokens) // (populations * self.particles)))


class _Particles(NamedTuple):
    """M particles side by side, finished ones too. Those that are not have as many tokens as each other.

    tokens_MT: int64.
    token_logp_MT: float32, nats, at temperature 1.
    length_M: int64.
    going_M: bool, not finished.
    logp_M: float64, nats, of all tokens so far under the model.
    ancestor_M: int64, which particle of the first K in its population it comes from.
    """

    tokens_MT: Tensor
    token_logp_MT: Tensor
    length_M: Tensor
    going_M: Tensor
    logp_M: Tensor
    ancestor_M: Tensor

    def at(self, source_M: Tensor) -> "_Particles":
        """Those named, in that order, repeats allowed."""
        return _Particles(*(field[source_M] for field in self))


@dataclass(frozen=True)
class _State:
    """What is kept from token to token. Place m belongs to population m // K, population b to prompt b // R.

    weight_M: float64, log weight of each place since its population was last drawn anew.
    log_z_B: float64, log of the estimate of Z up to then.
    particle_N: int64, which particle each row of the decoder holds; finished ones need none.
    """

    particles: _Particles
    weight_M: Tensor
    log_z_B: Tensor
    particle_N: Tensor


class _Seen(NamedTuple):
    """What is seen in one step: how many tokens were drawn for particles, and which populations were drawn anew."""

    drawn: int
    resampled: Tensor


@dataclass(frozen=True)
class _Populations:
    """How R populations of K particles for each of some prompts grow.

    first: number of the first prompt among all of the call.

    All that they keep is in the `_State`, but for what the decoder has read and how far the streams have got: these two
    go on with each step, so a state is good for one step.
    """

    sampler: PowerSMC
    model: LanguageModel
    decoder: Decoder
    streams: Streams
    grade_fn: GradeFn | None
    first: int
    n: int
    R: int
    limit: int

    @property
    def K(self) -> int:
        return self.sampler.particles

    def run(self) -> Samples:
        with stopwatch() as seconds:
            state, seen = self._start(), []
            for t in range(self.limit):
                if not state.particles.going_M.any():
                    break
                state, step = self._step(state, t)
                seen.append(step)
            return self._finish(state, seen, seconds)

    def _start(self) -> _State:
        size, device = len(self.decoder.length_N), self.decoder.ends_V.device
        place_M, zero_M = torch.arange(size, device=device), torch.zeros(size, dtype=torch.float64, device=device)
        particles = _Particles(
            tokens_MT=torch.zeros(size, self.limit, dtype=torch.long, device=device),
            token_logp_MT=torch.zeros(size, self.limit, device=device),
            length_M=torch.zeros_like(place_M),
            going_M=torch.ones_like(place_M, dtype=torch.bool),
            logp_M=zero_M,
            ancestor_M=place_M % self.K,
        )
        return _State(particles, zero_M, zero_M[:: self.K], place_M)

    def _step(self, state: _State, t: int) -> tuple[_State, _Seen]:
        state, drawn = self._grow(state, t)
        due = self._due(state) if t + 1 < self.limit else state.particle_N[:0]  # at the end the weights themselves tell
        return (self._resample(state, due) if len(due) else state), _Seen(drawn, due)

    def _grow(self, state: _State, t: int) -> tuple[_State, int]:
        """One more token for every particle that is not finished, and the weights that follow from it; and how many."""
        before, now = self.sampler.exponent(t), self.sampler.exponent(t + 1)
        logits_NV = self.decoder.next_logits()
        drawn = draw(logits_NV, self._uniform(state.particle_N), 1 / now)
        self.decoder.append(drawn.token_N)
        old = state.particles
        live_N = old.going_M[state.particle_N]  # the others have finished, and idle along until they leave
        m, token = state.particle_N[live_N], drawn.token_N[live_N]
        logp, logq = drawn.logp_N[live_N].double(), drawn.logq_N[live_N].double()
        place, ended = (m, old.length_M[m]), m[self.decoder.ends_V[token]]
        particles = old._replace(
            tokens_MT=old.tokens_MT.index_put(place, token),
            token_logp_MT=old.token_logp_MT.index_put(place, logp.float()),
            length_M=old.length_M.index_fill(0, m, t + 1),
            going_M=old.going_M.index_fill(0, ended, False),
            logp_M=old.logp_M.index_add(0, m, logp),
        )
        weight_M = (state.weight_M + (now - before) * old.logp_M).index_add(0, m, now * logp - logq)
        state = replace(state, particles=particles, weight_M=weight_M)
        return (self._leave(self._rewarded(state, ended)) if len(ended) else state), len(m)

    def _rewarded(self, state: _State, ended: Tensor) -> _State:
        """The rewards of these particles, which have just finished, enter their weights."""
        if self.grade_fn is None or self.sampler.beta is None:
            return state
        owners = (self.first + ended // (self.R * self.K)).tolist()
        grades = self.grade_fn(owners, self._rollouts(state.particles, ended))
        reward = torch.tensor([grade.reward for grade in grades], dtype=torch.float64)
        logp = state.particles.logp_M[ended]
        # what the target has beyond p^alpha, by the one definition that training and sampling share
        gain = self.sampler.objective.log_target(reward.to(logp.device), logp) - self.sampler.alpha * logp
        return replace(state, weight_M=state.weight_M.index_add(0, ended, gain.nan_to_num(nan=-math.inf)))

    def _due(self, state: _State) -> Tensor:
        """Numbers of the populations that a few particles have come to hold most of the weight of."""
        size_B = 1 / self._shares(state).square().sum(1)
        going_B = state.particles.going_M.view(-1, self.K).any(1)  # one that is finished keeps its weights
        return ((size_B < self.sampler.threshold * self.K) & going_B).nonzero()[:, 0]

    def _shares(self, state: _State) -> Tensor:
        """Of the weight of each population: [B, K]; 0 in one of no weight at all."""
        return state.weight_M.view(-1, self.K).softmax(1).nan_to_num(0.0)

    def _resample(self, state: _State, due: Tensor) -> _State:
        """Draw these populations anew from themselves; their weights are then alike."""
        weight_BK, share_BK = state.weight_M.view(-1, self.K), self._shares(state)
        place_BK = torch.arange(weight_BK.numel(), device=due.device).view(-1, self.K)
        chosen = systematic(share_BK[due], self._population_uniform(due), self.K)
        source_M = place_BK.index_copy(0, due, chosen + self.K * due[:, None]).flatten()
        particles = state.particles.at(source_M)
        row_M = torch.full_like(source_M, -1)
        row_M[state.particle_N] = torch.arange(len(state.particle_N), device=source_M.device)
        particle_N = particles.going_M.nonzero()[:, 0]
        self.decoder.select(row_M[source_M[particle_N]])  # in the cache a copy is an index
        return _State(
            particles,
            weight_BK.index_fill(0, due, 0.0).flatten(),
            state.log_z_B.index_add(0, due, weight_BK[due].logsumexp(1) - math.log(self.K)),
            particle_N,
        )

    def _leave(self, state: _State) -> _State:
        """Finished particles leave the batch, several at a time."""
        live_N = state.particles.going_M[state.particle_N]
        if not live_N.any() or live_N.sum() > (1 - LEAVE) * len(live_N):
            return state
        stay = live_N.nonzero()[:, 0]
        self.decoder.select(stay)
        return replace(state, particle_N=state.particle_N[stay])

    def _finish(self, state: _State, seen: Sequence[_Seen], seconds: Callable[[], float]) -> Samples:
        last = state.particles
        missing = self.sampler.alpha - self.sampler.exponent(int(last.length_M.max()))
        weight_M = (state.weight_M + missing * last.logp_M).masked_fill(last.going_M, -torch.inf)
        weight_BK = weight_M.view(-1, self.K)
        log_z_B = state.log_z_B + (weight_BK.logsumexp(1) - math.log(self.K))
        share_BK = weight_BK.softmax(1).nan_to_num(1 / self.K)
        everyone = torch.arange(len(share_BK), device=share_BK.device)
        chosen_BK = systematic(share_BK, self._population_uniform(everyone), self.K) + self.K * everyone[:, None]
        chosen_PG = self._some(chosen_BK)
        flat = self._rollouts(last, chosen_PG.flatten())
        groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
        return Samples(groups, self._info(log_z_B, share_BK, last.ancestor_M[chosen_BK], seen, seconds()))

    def _some(self, chosen_BK: Tensor) -> Tensor:
        """n of the particles of each prompt's populations: from the last one, evenly spread ones."""
        whole = chosen_BK.view(-1, self.R, self.K)
        rest = self.n - (self.R - 1) * self.K
        spread = (torch.arange(rest, device=whole.device) * self.K) // rest
        return torch.cat([whole[:, :-1].flatten(1), whole[:, -1, spread]], 1)

    def _info(
        self, log_z_B: Tensor, share_BK: Tensor, ancestor_BK: Tensor, seen: Sequence[_Seen], seconds: float
    ) -> Info:
        per_prompt = (-1, self.R)
        log_z = (log_z_B.view(per_prompt).logsumexp(1) - math.log(self.R)).tolist()
        ess = (1 / share_BK.square().sum(1) / self.K).view(per_prompt).mean(1).tolist()
        alive = [len(set(ancestors)) for ancestors in ancestor_BK.tolist()]
        ancestors = torch.tensor(alive, dtype=torch.float64).view(per_prompt).mean(1).tolist()
        times_B = torch.cat([step.resampled for step in seen]).bincount(minlength=len(log_z_B)).double()
        resampled = times_B.view(per_prompt).mean(1).tolist()
        warnings = []
        if self.K > 1 and sum(count == 1 for count in alive) > 0.5 * len(alive):
            warnings.append("PowerSMC: one ancestor survives in most populations; take more particles, or a ramp")
        if log_z_B.isinf().any():
            warnings.append("PowerSMC: some populations hold no complete, gradable response; theirs are not weighed")
        notes = {"log_z": log_z, "ess": ess, "ancestors": ancestors, "resampled": resampled}
        return Info(sum(step.drawn for step in seen), 0, seconds, notes, tuple(warnings))

    def _rollouts(self, particles: _Particles, m: Tensor) -> list[Rollout]:
        chosen = (particles.tokens_MT[m], particles.token_logp_MT[m], particles.length_M[m])
        rows = zip(*(field.tolist() for field in chosen), strict=True)
        return self.model.rollouts([(tokens[:end], logps[:end]) for tokens, logps, end in rows])

    def _uniform(self, particles: Tensor) -> Tensor:
        """From the stream of each particle: R (K + 1) of them a prompt, the last R those of its populations."""
        each, streams = self.R * self.K, self.R * (self.K + 1)
        rows = (self.first + particles // each) * streams + particles % each
        return self.streams.next(rows.cpu().numpy()).to(particles.device)

    def _population_uniform(self, populations: Tensor) -> Tensor:
        rows = (self.first + populations // self.R) * self.R * (self.K + 1) + self.R * self.K + populations % self.R
        return self.streams.next(rows.cpu().numpy()).to(populations.device)


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
