"""Chains that hit p^alpha, or p^alpha exp(r / beta), without training: their moves are those of `tail_moves`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.base import Decoder, LanguageModel
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, in_turns, stopwatch
from tiltlab.samplers.tail_moves import Decided, Moving, Responses, Tails
from tiltlab.types import Prompt, Rollout

RARELY = 0.03
"""Acceptance below which a chain has hardly moved."""

BINS = 10
"""Of the relative position of the cut, in `acceptance_by_cut`."""


@dataclass(frozen=True)
class PowerMCMC:
    """Targets p^alpha / Z or, with `beta`, the tilted distribution p^alpha exp(r / beta) / Z, over complete responses
    within the token limit: exactly as `steps` grows, approximately before.

    alpha: exponent of p, above 0.
    steps: proposals that a chain makes.
    beta: weight of the KL, above 0; None leaves the reward out.
    temperature: of the base, which proposals are drawn from; 1 / alpha where left out.

    Each of the n responses to a prompt is the end of a chain of its own, which starts with a draw from the proposal. A
    proposal that hits the token limit is rejected. Rewards of NaN count as minus infinity.
    """

    alpha: float = 4.0
    steps: int = 16
    beta: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")
        if not self.proposal_temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        assert self.objective.kl  # raises ValueError for a beta that is not above 0

    @property
    def objective(self) -> Objective:
        """What training would aim at, with the same log_target."""
        return tempered(self.alpha) if self.beta is None else tilted(self.beta, self.alpha)

    @property
    def proposal_temperature(self) -> float:
        """The temperature of the base that proposals are drawn at."""
        return 1 / self.alpha if self.temperature is None else self.temperature

    def drawn(self, n: int) -> int:
        """The start and all proposals of each chain, as if every cut were at the beginning."""
        return n * (self.steps + 1)

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
        """The ends of n chains for each prompt (see `Sampler`). Raises ValueError for a beta without a grade_fn."""
        if self.beta is not None and grade_fn is None:
            raise ValueError("sampling with a reward needs a grade_fn")

        streams = Streams(seed, prompts, n)

        def run(some: Sequence[Prompt], first: int) -> Samples:
            decoder = model.decoder(some, n=n, max_tokens=max_tokens)
            return _Chains(self, model, decoder, streams, grade_fn, first, n, max_tokens).run()

        # a chain holds its response and the proposal
        return in_turns(run, prompts, max(1, model.capacity(prompts, 2 * max_tokens) // n))


@dataclass(frozen=True)
class _Chains:
    """The chains of some prompts; chain c belongs to prompt c // n.

    first: number of the first prompt among all of the call.
    """

    sampler: PowerMCMC
    model: LanguageModel
    decoder: Decoder
    streams: Streams
    grade_fn: GradeFn | None
    first: int
    n: int
    limit: int

    def run(self) -> Samples:
        with stopwatch() as seconds:
            steps, temperature = self.sampler.steps, self.sampler.proposal_temperature
            tails = Tails(self.decoder, steps, self.limit, temperature, self._uniform, self._log_target)
            state, seen = tails.run(tails.drawn_first())
            flat = self._rollouts(state.held)
            groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
            info = self._info(state, Decided(*map(torch.cat, zip(*seen, strict=True))), seconds())
        return Samples(groups, info)

    def _log_target(self, chain_S: Tensor, proposed: Responses) -> Tensor:
        """Of complete responses whose reward is known; minus infinity for others."""
        logp_S = proposed.total_R
        reward_S = torch.zeros_like(logp_S)
        if self.grade_fn and self.sampler.beta is not None:
            grades = self.grade_fn((self.first + chain_S // self.n).tolist(), self._rollouts(proposed))
            reward_S = torch.tensor([grade.reward for grade in grades], dtype=torch.float64, device=chain_S.device)
        log_S = self.sampler.objective.log_target(reward_S, logp_S)
        complete_S = self.decoder.ends_V[proposed.last_R]
        return torch.where(complete_S & ~log_S.isnan(), log_S, -torch.inf)

    def _uniform(self, chain_S: Tensor) -> Tensor:
        return self.streams.next(chain_S.cpu().numpy() + self.first * self.n).to(chain_S.device)

    def _rollouts(self, responses: Responses) -> list[Rollout]:
        return self.model.rollouts(responses.rows())

    def _info(self, state: Moving, seen: Decided, seconds: float) -> Info:
        """seen: of every decision of the run."""
        size, steps = len(state.cut_C), self.sampler.steps
        proposal = seen.number_S > 0
        taken = proposal & seen.accepted_S
        accepted_C = seen.chain_S[taken].bincount(minlength=size)
        acceptance = (accepted_C / max(1, steps)).view(-1, self.n).mean(1).tolist()
        place_S = seen.cut_S * BINS // seen.before_S.clamp(min=1)
        by_cut_B = place_S[taken].bincount(minlength=BINS) / place_S[proposal].bincount(minlength=BINS)
        trace_CS = torch.zeros(size, steps + 1, dtype=torch.float64, device=seen.logp_S.device)
        trace_CS[seen.chain_S, seen.number_S] = seen.logp_S
        warnings = []
        if steps and min(acceptance) < RARELY:
            warnings.append(f"PowerMCMC hardly moved on some prompts (acceptance below {RARELY:.0%})")
        if _trends(trace_CS):
            warnings.append("PowerMCMC has not settled: the chains' mean log p still trends; take more steps")
        if (state.held.target_R == -torch.inf).any():
            warnings.append("PowerMCMC found no complete, gradable response for some chains; they end anywhere")
        notes = {"acceptance": acceptance, "acceptance_by_cut": [by_cut_B.tolist()]}
        rescored = int(state.decided_C.sum())  # the token before the cut is read again
        return Info(int((seen.length_S - seen.cut_S).sum()), rescored, seconds, notes, tuple(warnings))


def _trends(trace_CS: Tensor) -> bool:
    """Whether the chains' mean log p differs by four standard errors between the middle third and the last."""
    third = trace_CS.shape[1] // 3
    if third < 2 or len(trace_CS) < 8:
        return False
    rise_C = trace_CS[:, -third:].mean(1) - trace_CS[:, -2 * third : -third].mean(1)
    error = float(rise_C.std() / math.sqrt(len(rise_C)))
    return error > 0 and abs(float(rise_C.mean())) > 4 * error
