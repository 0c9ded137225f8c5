"""Chains that hit p^alpha, or p^alpha exp(r / beta), without training: their moves are those of `tail_moves`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiltlab.models.base import Decoder, LanguageModel
from tiltlab.models.engine import DrawnElsewhere
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, in_turns, stopwatch
from tiltlab.samplers.by_request import Requests, Rounds
from tiltlab.samplers.tail_moves import Decided, Responses, Tails
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
        if isinstance(model, DrawnElsewhere):
            requests = Requests(model, prompts, n, max_tokens, seed)
            return _Chains(self, model, requests.ended, streams, grade_fn, 0, n).by_request(requests)

        def by_token(some: Sequence[Prompt], first: int) -> Samples:
            decoder = model.decoder(some, n=n, max_tokens=max_tokens)
            chains = _Chains(self, model, decoder.ends_V.__getitem__, streams, grade_fn, first, n)
            return chains.by_token(decoder, max_tokens)

        # a chain holds its response and the proposal
        return in_turns(by_token, prompts, max(1, model.capacity(prompts, 2 * max_tokens) // n))


@dataclass(frozen=True)
class _Chains:
    """The chains of some prompts; chain c belongs to prompt c // n.

    ended: which of some tokens end a response.
    first: number of the first prompt among all of the call.
    """

    sampler: PowerMCMC
    model: LanguageModel
    ended: Callable[[Tensor], Tensor]
    streams: Streams
    grade_fn: GradeFn | None
    first: int
    n: int

    def by_token(self, decoder: Decoder, limit: int) -> Samples:
        """decoder: new, with a row for each chain."""
        with stopwatch() as seconds:
            temperature = self.sampler.proposal_temperature
            tails = Tails(decoder, self.sampler.steps, limit, temperature, self._uniform, self._log_target)
            state, seen = tails.run(tails.drawn_first())
            rescored = int(state.decided_C.sum())  # the token before the cut is read again
            return self._samples(state.held, seen, Info(0, rescored, seconds()))

    def by_request(self, requests: Requests) -> Samples:
        """requests: for all chains."""
        with stopwatch() as seconds:
            steps, temperature = self.sampler.steps, self.sampler.proposal_temperature
            rounds = Rounds(requests, steps, temperature, self._uniform, self._log_target)
            held, seen = rounds.drawn_first()
            notes, doubts = {"mismatch": [requests.mismatch]}, requests.doubts("PowerMCMC", temperature)
            return self._samples(held, seen, Info(0, requests.rescored, seconds(), notes, tuple(doubts)))

    def _log_target(self, chain_S: Tensor, proposed: Responses) -> Tensor:
        """Of complete responses whose reward is known; minus infinity for others."""
        logp_S = proposed.total_R
        reward_S = torch.zeros_like(logp_S)
        if self.grade_fn and self.sampler.beta is not None:
            grades = self.grade_fn((self.first + chain_S // self.n).tolist(), self._rollouts(proposed))
            reward_S = torch.tensor([grade.reward for grade in grades], dtype=torch.float64, device=chain_S.device)
        log_S = self.sampler.objective.log_target(reward_S, logp_S)
        complete_S = self.ended(proposed.last_R)
        return torch.where(complete_S & ~log_S.isnan(), log_S, -torch.inf)

    def _uniform(self, chain_S: Tensor) -> Tensor:
        return self.streams.next(chain_S.cpu().numpy() + self.first * self.n).to(chain_S.device)

    def _rollouts(self, responses: Responses) -> list[Rollout]:
        return self.model.rollouts(responses.rows())

    def _samples(self, held: Responses, decided: Sequence[Decided], info: Info) -> Samples:
        """What chains stand on at the end, and what is to be said of them beside what `info` says."""
        flat = self._rollouts(held)
        groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
        return Samples(groups, self._info(held, Decided(*map(torch.cat, zip(*decided, strict=True))), info))

    def _info(self, held: Responses, seen: Decided, info: Info) -> Info:
        """seen: of every decision of the run."""
        size, steps = len(held.length_R), self.sampler.steps
        proposal = seen.number_S > 0
        taken = proposal & seen.accepted_S
        accepted_C = seen.chain_S[taken].bincount(minlength=size)
        acceptance = (accepted_C / max(1, steps)).view(-1, self.n).mean(1).tolist()
        place_S = seen.cut_S * BINS // seen.before_S.clamp(min=1)
        by_cut_B = place_S[taken].bincount(minlength=BINS) / place_S[proposal].bincount(minlength=BINS)
        trace_CS = torch.zeros(size, steps + 1, dtype=torch.float64, device=seen.logp_S.device)
        trace_CS[seen.chain_S, seen.number_S] = seen.logp_S
        warnings = [*info.warnings]
        if steps and min(acceptance) < RARELY:
            warnings.append(f"PowerMCMC hardly moved on some prompts (acceptance below {RARELY:.0%})")
        if _trends(trace_CS):
            warnings.append("PowerMCMC has not settled: the chains' mean log p still trends; take more steps")
        if (held.target_R == -torch.inf).any():
            warnings.append("PowerMCMC found no complete, gradable response for some chains; they end anywhere")
        notes = {"acceptance": acceptance, "acceptance_by_cut": [by_cut_B.tolist()], **info.notes}
        drawn = int((seen.length_S - seen.cut_S).sum())
        return replace(info, drawn=drawn, notes=notes, warnings=tuple(warnings))


def _trends(trace_CS: Tensor) -> bool:
    """Whether the chains' mean log p differs by four standard errors between the middle third and the last."""
    third = trace_CS.shape[1] // 3
    if third < 2 or len(trace_CS) < 8:
        return False
    rise_C = trace_CS[:, -third:].mean(1) - trace_CS[:, -2 * third : -third].mean(1)
    error = float(rise_C.std() / math.sqrt(len(rise_C)))
    return error > 0 and abs(float(rise_C.mean())) > 4 * error
