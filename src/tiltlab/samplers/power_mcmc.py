"""Metropolis-Hastings on whole responses: chains that hit p^alpha, or p^alpha exp(r / beta), without training.

A proposal keeps a response up to a cut and draws the rest again, so responses grow and shrink. For it to leave the law
as it is, the ratio must count (arXiv 2510.14901 has the idea; implementations of it go wrong in the three below):

- both tails in full, the old and the new, each to its own end,
- how likely the cut was: one in |y| from here, one in |y'| for the way back,
- EOS like any other token: as a place to cut and as a factor.

All chains share a batch, and none waits for another: one that has finished a proposal begins its next at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import Info, Judge, Samples, Streams, in_turns, stopwatch
from tiltlab.types import Prompt, Rollout

RARELY = 0.03
"""Acceptance below which a chain has hardly moved."""

BINS = 10
"""Of the relative position of the cut, in `acceptance_by_cut`."""


@dataclass(frozen=True)
class PowerMCMC:
    """Targets p^alpha / Z or, with `beta`, the tilted law p^alpha exp(r / beta) / Z, over complete responses within the
    token limit: exactly as `steps` grows, approximately before.

    Each of the n responses to a prompt is the end of a chain of its own, which starts with a draw from the proposal
    (the base at `temperature`, 1 / alpha where left out) and makes `steps` proposals. A proposal that hits the token
    limit is rejected. Rewards of NaN count as minus infinity.
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
        return 1 / self.alpha if self.temperature is None else self.temperature

    def drawn(self, n: int) -> int:
        return n * (self.steps + 1)

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

        streams = Streams(seed, prompts, n)

        def run(some: Sequence[Prompt], first: int) -> Samples:
            return _Chains(self, model, some, first, n, max_tokens, streams, judge).run()

        # a chain holds its response and the proposal
        return in_turns(run, prompts, max(1, model.capacity(prompts, 2 * max_tokens) // n))


class _Chains:
    """Chain i belongs to prompt i // n. Decoder row r holds chain `chain_N[r]`; rows of chains that are done leave.

    What is true of a proposal is kept by row, what is true of a chain's state by chain.
    """

    def __init__(
        self,
        sampler: PowerMCMC,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        first: int,
        n: int,
        max_tokens: int,
        streams: Streams,
        judge: Judge | None,
    ) -> None:
        self.sampler, self.model, self.judge, self.streams = sampler, model, judge, streams
        self.first, self.n, self.limit = first, n, max_tokens
        self.decoder = model.decoder(prompts, n=n, max_tokens=max_tokens)
        size, device = len(prompts) * n, self.decoder.ends_V.device
        self.chain_N = torch.arange(size, device=device)
        self.logp_NT, self.logq_NT = (torch.zeros(size, max_tokens, device=device) for _ in range(2))
        self.tokens_CT = torch.zeros(size, max_tokens, dtype=torch.long, device=device)
        self.logp_CT, self.logq_CT = self.logp_NT.clone(), self.logq_NT.clone()
        self.length_C, self.cut_C = (torch.zeros(size, dtype=torch.long, device=device) for _ in range(2))
        self.target_C = torch.full((size,), -torch.inf, dtype=torch.float64, device=device)
        self.proposals_C = torch.full((size,), -1, device=device)  # the first draw is no proposal
        self.trace_CS = torch.zeros(size, sampler.steps + 1, dtype=torch.float64, device=device)
        self.accepted_C = torch.zeros(size, device=device)
        self.tried_B, self.accepted_B = (torch.zeros(BINS, device=device) for _ in range(2))
        self.drawn = torch.zeros((), dtype=torch.long, device=device)

    def run(self) -> Samples:
        with stopwatch() as seconds:
            while len(self.chain_N):
                self._step()
            flat = self._rollouts(self.tokens_CT, self.logp_CT, self.length_C)
            log_q = _masked(self.logq_CT, 0, self.length_C).sum(1).tolist()
            groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
            info = self._info(seconds())
        return Samples(
            groups,
            [log_q[i : i + self.n] for i in range(0, len(flat), self.n)],
            [[0.0] * self.n for _ in groups],
            info,
        )

    def _step(self) -> None:
        decoder = self.decoder
        logits = decoder.next_logits()
        drawn = draw(logits, self._uniform(self.chain_N), self.sampler.proposal_temperature)
        place_N1 = decoder.length_N[:, None]
        self.logp_NT.scatter_(1, place_N1, drawn.logp_N[:, None])
        self.logq_NT.scatter_(1, place_N1, drawn.logq_N[:, None])
        decoder.append(drawn.token_N)
        over_N = decoder.ends_V[drawn.token_N] | (decoder.length_N == self.limit)
        rows = over_N.nonzero()[:, 0]
        if len(rows):
            self._settle(rows)

    def _settle(self, rows: Tensor) -> None:
        """These rows hold whole proposals: accept or reject each, then cut its chain's state anew."""
        going = self.proposals_C[self.chain_N[rows]] < self.sampler.steps
        live = rows[going]  # the others have made their steps, and idle along until they leave
        chains = self.chain_N[live]
        length, target = self.decoder.length_N[live], self._targets(live)
        accept = self._uniform(chains).log() < self._log_ratio(live, chains, length, target)
        self._count(chains, accept, length)
        taken, to = live[accept], chains[accept]
        self.decoder.bookmark(taken)
        self.tokens_CT[to], self.length_C[to] = self.decoder.tokens_NT[taken], length[accept]
        self.logp_CT[to], self.logq_CT[to] = self.logp_NT[taken], self.logq_NT[taken]
        self.target_C[to] = target[accept]
        self.proposals_C[chains] += 1
        self.trace_CS[chains, self.proposals_C[chains]] = _masked(self.logp_CT[chains], 0, self.length_C[chains]).sum(1)
        self.cut_C[chains] = (self._uniform(chains) * self.length_C[chains]).long()
        everyone = self.chain_N[rows]
        self.decoder.rewind(rows, self.cut_C[everyone])
        self.logp_NT[rows], self.logq_NT[rows] = self.logp_CT[everyone], self.logq_CT[everyone]
        if not (self.proposals_C[chains] < self.sampler.steps).all():
            self._leave()

    def _log_ratio(self, rows: Tensor, chains: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """log of the Metropolis-Hastings ratio, float64: targets, tails, and the choice of the cut, there and back.

        Infinite for a chain without a state, or with one that the law does not know: it takes what comes.
        """
        cut, old_length = self.cut_C[chains], self.length_C[chains]
        back = _masked(self.logq_CT[chains], cut, old_length).sum(1) - length.log()
        there = _masked(self.logq_NT[rows], cut, length).sum(1) - old_length.log()
        old = self.target_C[chains]
        return torch.where(old == -torch.inf, torch.inf, target - old + back - there)

    def _targets(self, rows: Tensor) -> Tensor:
        """log of the target, up to its constant, float64; minus infinity for what is no complete response."""
        length, tokens = self.decoder.length_N[rows], self.decoder.tokens_NT[rows]
        logp = _masked(self.logp_NT[rows], 0, length).sum(1)
        reward = torch.zeros_like(logp)
        if self.judge and self.sampler.beta is not None:
            owners = (self.first + self.chain_N[rows] // self.n).tolist()
            grades = self.judge(owners, self._rollouts(tokens, self.logp_NT[rows], length))
            reward = torch.tensor([grade.reward for grade in grades], dtype=torch.float64, device=rows.device)
        log = self.sampler.objective.log_target(reward, logp)
        complete = self.decoder.ends_V[tokens.gather(1, length[:, None] - 1)[:, 0]]
        return torch.where(complete & ~log.isnan(), log, -torch.inf)

    def _count(self, chains: Tensor, accept: Tensor, length: Tensor) -> None:
        self.drawn += (length - self.cut_C[chains]).sum()
        moved = self.proposals_C[chains] >= 0
        chains, accept = chains[moved], accept[moved].float()
        where = self.cut_C[chains] * BINS // self.length_C[chains]
        self.tried_B.index_add_(0, where, torch.ones_like(accept))
        self.accepted_B.index_add_(0, where, accept)
        self.accepted_C[chains] += accept

    def _leave(self) -> None:
        """Chains that have made their steps leave the batch, several at a time."""
        going = self.proposals_C[self.chain_N] < self.sampler.steps
        if going.sum() <= (1 - LEAVE) * len(going):
            stay = going.nonzero()[:, 0]
            self.chain_N = self.chain_N[stay]
            if len(stay):
                self.decoder.select(stay)
                self.logp_NT, self.logq_NT = self.logp_NT[stay], self.logq_NT[stay]

    def _uniform(self, chains: Tensor) -> Tensor:
        return self.streams.next(chains.cpu().numpy() + self.first * self.n).to(chains.device)

    def _rollouts(self, tokens_NT: Tensor, logp_NT: Tensor, length_N: Tensor) -> list[Rollout]:
        rows = zip(tokens_NT.tolist(), logp_NT.tolist(), length_N.tolist(), strict=True)
        return self.model.rollouts([(tokens[:end], logps[:end]) for tokens, logps, end in rows])

    def _info(self, seconds: float) -> Info:
        acceptance = (self.accepted_C / max(1, self.sampler.steps)).view(-1, self.n).mean(1).tolist()
        warnings = []
        if self.sampler.steps and min(acceptance) < RARELY:
            warnings.append(f"PowerMCMC hardly moved on some prompts (acceptance below {RARELY:.0%})")
        if _trends(self.trace_CS):
            warnings.append("PowerMCMC has not settled: the chains' mean log p still trends; take more steps")
        if (self.target_C == -torch.inf).any():
            warnings.append("PowerMCMC found no complete, gradable response for some chains; they end anywhere")
        notes = {"acceptance": acceptance, "acceptance_by_cut": [(self.accepted_B / self.tried_B).tolist()]}
        rescored = int(self.proposals_C.sum())  # the token before the cut is read again
        return Info(int(self.drawn), rescored, seconds, notes, tuple(warnings))


def _masked(values_NT: Tensor, start: Tensor | int, end_N: Tensor) -> Tensor:
    """float64, with zeros before `start` and from `end_N` on."""
    place_T = torch.arange(values_NT.shape[1], device=values_NT.device)
    from_N1 = start[:, None] if isinstance(start, Tensor) else start
    return values_NT.double() * ((place_T >= from_N1) & (place_T < end_N[:, None]))


def _trends(trace_CS: Tensor) -> bool:
    """Whether the chains' mean log p differs by four standard errors between the middle third and the last."""
    third = trace_CS.shape[1] // 3
    if third < 2 or len(trace_CS) < 8:
        return False
    rise_C = trace_CS[:, -third:].mean(1) - trace_CS[:, -2 * third : -third].mean(1)
    error = float(rise_C.std() / math.sqrt(len(rise_C)))
    return error > 0 and abs(float(rise_C.mean())) > 4 * error
