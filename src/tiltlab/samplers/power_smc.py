"""Sequential Monte Carlo for p^alpha, or p^alpha exp(r / beta): a population that grows token by token, in step.

Every particle draws its next token from the base at temperature 1 / alpha, is weighed by how far that law is from
p^alpha, and where a few come to hold most of the weight the population is drawn anew from itself.

Left out on purpose: moves after resampling, and look-ahead: the weight of a prefix says nothing of what can follow it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import Info, Judge, Samples, Streams, in_turns, stopwatch
from tiltlab.types import Prompt, Rollout


@dataclass(frozen=True)
class PowerSMC:
    """Targets p^alpha / Z or, with `beta`, the tilted law p^alpha exp(r / beta) / Z, over complete responses within the
    token limit: exactly as `particles` grows, approximately before; its estimate of Z is unbiased for any number.

    n responses take ceil(n / particles) populations, each of which gives its particles, drawn from their weights
    (systematic resampling): those of one population are related, and repeat where few ancestors survive. A population
    resamples where its effective size falls below `threshold` x particles. `ramp`: raise the exponent from 1 to alpha
    over so many tokens (0: alpha from the start). A finished particle keeps its weight; the reward enters it when it
    finishes. Rewards of NaN, and responses that hit the token limit, weigh nothing.
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
        """Of p in the law that a population stands for after so many tokens."""
        return self.alpha if tokens >= self.ramp else 1 + (self.alpha - 1) * tokens / self.ramp

    def drawn(self, n: int) -> int:
        return math.ceil(n / self.particles) * self.particles

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        judge: Judge | None = None,
    ) -> Samples:
        if self.beta is not None and judge is None:
            raise ValueError("sampling with a reward needs a judge")
        populations = math.ceil(n / self.particles)
        rows = populations * (self.particles + 1)  # a stream for each particle, and one for each population
        streams = Streams(seed, prompts, rows)

        def run(some: Sequence[Prompt], first: int) -> Samples:
            return _Populations(self, model, some, first, n, max_tokens, streams, judge).run()

        return in_turns(run, prompts, max(1, model.capacity(prompts, max_tokens) // (populations * self.particles)))


class _Populations:
    """Particle m belongs to population m // K, population b to prompt b // R. Decoder row i holds particle
    `particle_N[i]`; finished particles need none."""

    def __init__(
        self,
        sampler: PowerSMC,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        first: int,
        n: int,
        max_tokens: int,
        streams: Streams,
        judge: Judge | None,
    ) -> None:
        self.sampler, self.model, self.judge, self.streams = sampler, model, judge, streams
        self.first, self.n, self.limit, self.prompts = first, n, max_tokens, len(prompts)
        self.K, self.R = sampler.particles, math.ceil(n / sampler.particles)
        self.decoder = model.decoder(prompts, n=self.R * self.K, max_tokens=max_tokens)
        size, device = len(prompts) * self.R * self.K, self.decoder.ends_V.device
        self.particle_N = torch.arange(size, device=device)
        self.tokens_MT = torch.zeros(size, max_tokens, dtype=torch.long, device=device)
        self.logp_MT = torch.zeros(size, max_tokens, device=device)
        self.length_M = torch.zeros(size, dtype=torch.long, device=device)
        self.going_M = torch.ones(size, dtype=torch.bool, device=device)
        self.logp_M, self.logq_M, self.weight_M, self.gain_M = (
            torch.zeros(size, dtype=torch.float64, device=device) for _ in range(4)
        )
        self.ancestor_M = torch.arange(size, device=device) % self.K
        self.log_z_B = torch.zeros(size // self.K, dtype=torch.float64, device=device)
        self.resampled = torch.zeros_like(self.log_z_B)
        self.drawn = 0

    def run(self) -> Samples:
        with stopwatch() as seconds:
            for t in range(self.limit):
                if not self.going_M.any():
                    break
                self._grow(t)
                if t + 1 < self.limit:  # after the last token the weights themselves tell
                    self._resample_where_due()
            return self._finish(seconds)

    def _grow(self, t: int) -> None:
        """One more token for every particle that is not finished, and the weights that follow from it."""
        before, now = self.sampler.exponent(t), self.sampler.exponent(t + 1)
        logits = self.decoder.next_logits()
        drawn = draw(logits, self._uniform(self.particle_N), 1 / now)
        self.decoder.append(drawn.token_N)
        live_N = self.going_M[self.particle_N]  # the others have finished, and idle along until they leave
        m, token = self.particle_N[live_N], drawn.token_N[live_N]
        logp, logq = drawn.logp_N[live_N].double(), drawn.logq_N[live_N].double()
        self.drawn += len(m)
        self.tokens_MT[m, t], self.logp_MT[m, t] = token, logp.float()
        self.length_M[m] += 1
        self.weight_M += (now - before) * self.logp_M
        self.weight_M[m] += now * logp - logq
        self.logp_M[m] += logp
        self.logq_M[m] += logq
        ended = m[self.decoder.ends_V[token]]
        self.going_M[ended] = False
        if len(ended):
            self._reward(ended)
            self._leave()

    def _reward(self, ended: Tensor) -> None:
        if self.judge is None or self.sampler.beta is None:
            return
        owners = (self.first + ended // (self.R * self.K)).tolist()
        reward = torch.tensor([g.reward for g in self.judge(owners, self._rollouts(ended))], dtype=torch.float64)
        logp = self.logp_M[ended]
        # what the target has beyond p^alpha, by the one definition that training and sampling share
        gain = self.sampler.objective.log_target(reward.to(logp.device), logp) - self.sampler.alpha * logp
        self.weight_M[ended] += gain.nan_to_num(nan=-math.inf)

    def _resample_where_due(self) -> None:
        weight_BK = self.weight_M.view(-1, self.K)
        share_BK = weight_BK.softmax(1).nan_to_num(0.0)  # a population of no weight at all
        size_B = 1 / share_BK.square().sum(1)
        going_B = self.going_M.view(-1, self.K).any(1)  # one that is finished keeps its weights
        due = ((size_B < self.sampler.threshold * self.K) & going_B).nonzero()[:, 0]
        if len(due) == 0:
            return
        self.log_z_B[due] += weight_BK[due].logsumexp(1) - math.log(self.K)
        self.resampled[due] += 1
        chosen_BK = torch.arange(self.K, device=due.device).repeat(len(weight_BK), 1)
        chosen_BK[due] = systematic(share_BK[due], self._population_uniform(due), self.K)
        source_M = (chosen_BK + self.K * torch.arange(len(chosen_BK), device=due.device)[:, None]).flatten()
        weight_BK[due] = 0.0
        self._rearrange(source_M)

    def _rearrange(self, source_M: Tensor) -> None:
        """Particle m becomes a copy of particle source_M[m]; in the cache that is an index."""
        weight_M = self.weight_M  # of the places, not of the particles
        for name in ("tokens_MT", "logp_MT", "length_M", "going_M", "logp_M", "logq_M", "ancestor_M"):
            setattr(self, name, getattr(self, name)[source_M])
        self.weight_M = weight_M
        row_M = torch.full_like(source_M, -1)
        row_M[self.particle_N] = torch.arange(len(self.particle_N), device=source_M.device)
        self.particle_N = self.going_M.nonzero()[:, 0]
        self.decoder.select(row_M[source_M[self.particle_N]])

    def _leave(self) -> None:
        live_N = self.going_M[self.particle_N]
        if live_N.any() and live_N.sum() <= (1 - LEAVE) * len(live_N):
            stay = live_N.nonzero()[:, 0]
            self.particle_N = self.particle_N[stay]
            self.decoder.select(stay)

    def _finish(self, seconds: Callable[[], float]) -> Samples:
        self.weight_M += (self.sampler.alpha - self.sampler.exponent(int(self.length_M.max()))) * self.logp_M
        self.weight_M[self.going_M] = -torch.inf
        weight_BK = self.weight_M.view(-1, self.K)
        self.log_z_B += weight_BK.logsumexp(1) - math.log(self.K)
        share_BK = weight_BK.softmax(1).nan_to_num(1 / self.K)
        everyone = torch.arange(len(share_BK), device=share_BK.device)
        chosen_BK = systematic(share_BK, self._population_uniform(everyone), self.K) + self.K * everyone[:, None]
        chosen_PG = self._some(chosen_BK)
        flat = self._rollouts(chosen_PG.flatten())
        groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
        return Samples(
            groups,
            self.logq_M[chosen_PG].tolist(),
            [[0.0] * self.n for _ in groups],
            self._info(share_BK, self.ancestor_M[chosen_BK], seconds()),
        )

    def _some(self, chosen_BK: Tensor) -> Tensor:
        """n of the particles of each prompt's populations: from the last one, evenly spread ones."""
        whole = chosen_BK.view(self.prompts, self.R, self.K)
        rest = self.n - (self.R - 1) * self.K
        spread = (torch.arange(rest, device=whole.device) * self.K) // rest
        return torch.cat([whole[:, :-1].flatten(1), whole[:, -1, spread]], 1)

    def _info(self, share_BK: Tensor, ancestor_BK: Tensor, seconds: float) -> Info:
        per_prompt = (self.prompts, self.R)
        log_z = (self.log_z_B.view(per_prompt).logsumexp(1) - math.log(self.R)).tolist()
        ess = (1 / share_BK.square().sum(1) / self.K).view(per_prompt).mean(1).tolist()
        alive = [len(set(ancestors)) for ancestors in ancestor_BK.tolist()]
        ancestors = torch.tensor(alive, dtype=torch.float64).view(per_prompt).mean(1).tolist()
        resampled = self.resampled.view(per_prompt).mean(1).tolist()
        warnings = []
        if self.K > 1 and sum(count == 1 for count in alive) > 0.5 * len(alive):
            warnings.append("PowerSMC: one ancestor survives in most populations; take more particles, or a ramp")
        if self.log_z_B.isinf().any():
            warnings.append("PowerSMC: some populations hold no complete, gradable response; theirs are not weighed")
        notes = {"log_z": log_z, "ess": ess, "ancestors": ancestors, "resampled": resampled}
        return Info(self.drawn, 0, seconds, notes, tuple(warnings))

    def _rollouts(self, m: Tensor) -> list[Rollout]:
        rows = zip(self.tokens_MT[m].tolist(), self.logp_MT[m].tolist(), self.length_M[m].tolist(), strict=True)
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
    random number, [B, count]. Each is taken count x share times, rounded up or down."""
    looks_BK = (torch.arange(count, device=share_BK.device) + uniform_B[:, None]) / count
    total_BK = share_BK.cumsum(1)
    total_BK = total_BK / total_BK[:, -1:]
    return torch.searchsorted(total_BK, looks_BK, right=True).clamp(max=share_BK.shape[1] - 1)
