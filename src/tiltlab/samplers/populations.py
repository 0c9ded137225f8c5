"""How populations of particles grow, are drawn anew from themselves, move, and end, whoever draws their tokens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, stopwatch
from tiltlab.samplers.growth import Growth
from tiltlab.samplers.particles import Particles, systematic
from tiltlab.samplers.tail_moves import Decided, Responses
from tiltlab.types import Rollout

if TYPE_CHECKING:
    from tiltlab.samplers.power_smc import PowerSMC


@dataclass(frozen=True)
class _State:
    """What is kept from step to step. Place m belongs to population m // K, population b to prompt b // R.

    tokens: that a particle has by now, unless it is finished.
    weight_M: float64, log weight of each place since its population was last drawn anew.
    log_z_B: float64, log of the estimate of Z up to then.
    """

    tokens: int
    particles: Particles
    weight_M: Tensor
    log_z_B: Tensor


class _Seen(NamedTuple):
    """What is seen in one step: how many tokens were drawn for particles, which populations were drawn anew, and what
    was decided as they moved."""

    drawn: int
    resampled: Tensor
    decided: Sequence[Decided] = ()


@dataclass(frozen=True)
class Populations:
    """How R populations of K particles for each of some prompts grow.

    prompts: how many.
    first: number of the first of them among all of the call.

    All that they keep is in the `_State`, but for what the growth has read and how far the streams have got: these two
    go on with each step, so a state is good for one step.
    """

    sampler: "PowerSMC"
    model: LanguageModel
    growth: Growth
    streams: Streams
    grade_fn: GradeFn | None
    prompts: int
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
            while state.tokens < self.limit and (self.sampler.moves or state.particles.going_M.any()):
                state, step = self._step(state)
                seen.append(step)
            return self._finish(state, seen, seconds)

    def _start(self) -> _State:
        size = self.prompts * self.R * self.K
        particles = Particles.empty(size, self.limit, self.K, self.growth.device)
        return _State(0, particles, particles.logp_M, particles.logp_M[:: self.K])

    def _step(self, state: _State) -> tuple[_State, _Seen]:
        state, drawn = self._grow(state)
        due = self._due(state)
        if state.tokens == self.limit:
            return state, _Seen(drawn, due[:0])  # at the end the weights themselves tell
        if len(due):
            state = self._resample(state, due)
        decided: list[Decided] = []
        if self.sampler.moves and _power_of_two(state.tokens // self.growth.block):
            # At times that nobody chose. When to resample may follow from the weights, and Z stays unbiased, for it
            # changes no expectation; moves do, and would be made where the weights are low.
            particles, decided = self._moved(
                state.particles, torch.arange(len(state.weight_M), device=due.device), state.tokens
            )
            state = replace(state, particles=particles)
        return state, _Seen(drawn, due, decided)

    def _grow(self, state: _State) -> tuple[_State, int]:
        """More tokens for every particle that is not finished, and the weights that follow from them; and how many."""
        tokens = min(state.tokens + self.growth.block, self.limit)
        before, now = self.sampler.exponent(state.tokens), self.sampler.exponent(tokens)
        old = state.particles
        grown = self.growth.grow(old, self.sampler.proposal_temperature(now), self._uniform)
        m, last_S1 = grown.particle_S, grown.count_S[:, None] - 1
        ended_S = self.growth.ended(grown.tokens_SL.gather(1, last_S1)[:, 0])
        particles, just_S = old.longer(grown, ended_S), m[ended_S]
        weight_M = (state.weight_M + (now - before) * old.logp_M).index_add(0, m, now * grown.logp_S - grown.logq_S)
        if len(just_S):
            self.growth.finished(particles, just_S)
            gain_S = self._gain(just_S, particles.responses(now).at(just_S))
            particles = particles._replace(gain_M=particles.gain_M.index_copy(0, just_S, gain_S))
            weight_M = weight_M.index_add(0, just_S, gain_S)
        return _State(tokens, particles, weight_M, state.log_z_B), int(grown.count_S.sum())

    def _gain(self, place_S: Tensor, responses: Responses) -> Tensor:
        """What the log target of these responses, which are finished, has beyond p^alpha: float64 [S]."""
        logp_S = responses.total_R
        if self.grade_fn is None or self.sampler.beta is None or not len(place_S):
            return torch.zeros_like(logp_S)
        owners = (self.first + place_S // (self.R * self.K)).tolist()
        grades = self.grade_fn(owners, self.model.rollouts(responses.rows()))
        reward_S = torch.tensor([grade.reward for grade in grades], dtype=torch.float64, device=logp_S.device)
        # by the one definition that training and sampling share
        log_S: Tensor = self.sampler.objective.log_target(reward_S, logp_S)
        return (log_S - self.sampler.alpha * logp_S).nan_to_num(nan=-math.inf)

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
        self.growth.choose(particles, source_M)
        return _State(
            state.tokens,
            particles,
            weight_BK.index_fill(0, due, 0.0).flatten(),
            state.log_z_B.index_add(0, due, weight_BK[due].logsumexp(1) - math.log(self.K)),
        )

    def _moved(
        self, particles: Particles, place_N: Tensor, tokens: int, *, last: bool = False
    ) -> tuple[Particles, list[Decided]]:
        """What these particles are after moves that leave the distribution as it is that populations stand for.

        place_N: whose random numbers each has.
        tokens: that one has which is not finished.
        last: whether what is not finished has no place in the distribution any more.
        """
        exponent = self.sampler.alpha if last else self.sampler.exponent(tokens)

        def log_target(chain_S: Tensor, proposed: Responses) -> Tensor:
            ended_S = self.growth.ended(proposed.last_R)
            ended = ended_S.nonzero()[:, 0]
            log_S = exponent * proposed.total_R
            gain_S = torch.full_like(log_S, -torch.inf if last else 0.0)
            return log_S + gain_S.index_copy(0, ended, self._gain(place_N[chain_S[ended]], proposed.at(ended)))

        held = particles.responses(exponent)
        if last:
            held = held._replace(target_R=held.target_R.masked_fill(particles.going_M, -torch.inf))
        held, decided = self.growth.move(held, place_N, tokens, lambda row_S: self._uniform(place_N[row_S]), log_target)
        ancestor_N = particles.ancestor_M
        for step in decided:
            anew = step.chain_S[step.accepted_S & (step.cut_S == 0)]
            ancestor_N = ancestor_N.index_copy(0, anew, place_N[anew] % self.K + self.K * (tokens + last))
        decided = [step._replace(chain_S=place_N[step.chain_S]) for step in decided]
        return particles.moved(held, self.growth.ended(held.last_R), exponent, ancestor_N), decided

    def _finish(self, state: _State, seen: list[_Seen], seconds: Callable[[], float]) -> Samples:
        last = state.particles
        missing = self.sampler.alpha - self.sampler.exponent(state.tokens)
        weight_M = (state.weight_M + missing * last.logp_M).masked_fill(last.going_M, -torch.inf)
        weight_BK = weight_M.view(-1, self.K)
        log_z_B = state.log_z_B + (weight_BK.logsumexp(1) - math.log(self.K))
        share_BK = weight_BK.softmax(1).nan_to_num(1 / self.K)
        everyone = torch.arange(len(share_BK), device=share_BK.device)
        chosen_BK = systematic(share_BK, self._population_uniform(everyone), self.K) + self.K * everyone[:, None]
        place_N = self._some(torch.arange(chosen_BK.numel(), device=everyone.device).view_as(chosen_BK)).flatten()
        particles, ancestor_M = last.at(chosen_BK.flatten()[place_N]), last.ancestor_M[chosen_BK.flatten()]
        if self.sampler.moves:
            self.growth.choose(particles, chosen_BK.flatten()[place_N])
            particles, decided = self._moved(particles, place_N, self.limit, last=True)
            ancestor_M = ancestor_M.index_copy(0, place_N, particles.ancestor_M)
            seen = [*seen, _Seen(0, everyone[:0], decided)]
        flat = self.model.rollouts(particles.responses(0).rows())
        groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
        return Samples(groups, self._info(log_z_B, share_BK, ancestor_M.view_as(chosen_BK), groups, seen, seconds()))

    def _some(self, chosen_BK: Tensor) -> Tensor:
        """n of the particles of each prompt's populations: from the last one, evenly spread ones."""
        whole = chosen_BK.view(-1, self.R, self.K)
        rest = self.n - (self.R - 1) * self.K
        spread = (torch.arange(rest, device=whole.device) * self.K) // rest
        return torch.cat([whole[:, :-1].flatten(1), whole[:, -1, spread]], 1)

    def _info(
        self,
        log_z_B: Tensor,
        share_BK: Tensor,
        ancestor_BK: Tensor,
        groups: Sequence[Sequence[Rollout]],
        seen: Sequence[_Seen],
        seconds: float,
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
        distinct = [len({rollout.tokens for rollout in group}) for group in groups]
        notes = {
            "log_z": log_z,
            "ess": ess,
            "ancestors": ancestors,
            "resampled": resampled,
            "distinct": distinct,
            **self.growth.notes,
        }
        decided = [one for step in seen for one in step.decided]
        moved = sum(int((one.length_S - one.cut_S).sum()) for one in decided)
        if decided:
            prompt_S = torch.cat([one.chain_S for one in decided]) // (self.R * self.K)
            accepted_S = torch.cat([one.accepted_S for one in decided])
            taken, made = (prompts.bincount(minlength=len(groups)) for prompts in (prompt_S[accepted_S], prompt_S))
            notes["acceptance"] = (taken / made).tolist()
        return Info(
            sum(step.drawn for step in seen) + moved,
            self.growth.rescored,
            seconds,
            notes,
            tuple(warnings + self.growth.doubts),
        )

    def _uniform(self, particles: Tensor) -> Tensor:
        """From the stream of each particle: R (K + 1) of them a prompt, the last R those of its populations."""
        each, streams = self.R * self.K, self.R * (self.K + 1)
        rows = (self.first + particles // each) * streams + particles % each
        return self.streams.next(rows.cpu().numpy()).to(particles.device)

    def _population_uniform(self, populations: Tensor) -> Tensor:
        rows = (self.first + populations // self.R) * self.R * (self.K + 1) + self.R * self.K + populations % self.R
        return self.streams.next(rows.cpu().numpy()).to(populations.device)


def _power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
