"""Metropolis-Hastings on whole responses: chains that hit p^alpha, or p^alpha exp(r / beta), without training.

A proposal keeps a response up to a cut and draws the rest again, so responses grow and shrink. For it to leave the
distribution as it is, the ratio must count (arXiv 2510.14901 has the idea; implementations of it go wrong in the three
below):

- both tails in full, the old and the new, each to its own end,
- how likely the cut was: one in |y| from here, one in |y'| for the way back,
- EOS like any other token: as a place to cut and as a factor.

All chains share a batch, and none waits for another: one that has finished a proposal begins its next at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tiltlab.models.base import Decoder, LanguageModel
from tiltlab.models.decoding import LEAVE, draw
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import GradeFn, Info, Samples, Streams, in_turns, stopwatch
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


class _Responses(NamedTuple):
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

    def at(self, rows_S: Tensor) -> "_Responses":
        """Those named, or those marked."""
        return _Responses(*(field[rows_S] for field in self))

    def put(self, rows_S: Tensor, others: "_Responses") -> "_Responses":
        """The same but for these rows (none twice), which hold the others."""
        return _Responses(*(mine.index_copy(0, rows_S, new) for mine, new in zip(self, others, strict=True)))


@dataclass(frozen=True)
class _State:
    """What is kept from token to token. Chain c belongs to prompt c // n.

    held: the response that each chain stands on.
    cut_C: int64, how many tokens of it the proposal under way keeps.
    decided_C: int64, proposals accepted or rejected so far; -1 before the first draw, which is no proposal.
    chain_N: int64, whose proposal each row of the decoder holds; the rows of chains that are done leave.
    logp_NT, logq_NT: float32, of the tokens of each row, as in `_Responses`.
    """

    held: _Responses
    cut_C: Tensor
    decided_C: Tensor
    chain_N: Tensor
    logp_NT: Tensor
    logq_NT: Tensor


class _Decided(NamedTuple):
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
class _Chains:
    """How the chains of some prompts move, all of them a token at a time.

    first: number of the first prompt among all of the call.

    All that they keep is in the `_State`, but for what the decoder has read and how far the streams have got: these two
    go on with each step, so a state is good for one step.
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
            state, seen = self._start(), []
            while len(state.chain_N):
                state, decided = self._step(state)
                seen += [decided] if decided else []
            held = state.held
            flat = self._rollouts(held.tokens_RT, held.logp_RT, held.length_R)
            groups = [flat[i : i + self.n] for i in range(0, len(flat), self.n)]
            info = self._info(state, _Decided(*map(torch.cat, zip(*seen, strict=True))), seconds())
        return Samples(groups, info)

    def _start(self) -> _State:
        size, device = len(self.decoder.length_N), self.decoder.ends_V.device
        blank, zero_C = torch.zeros(size, self.limit, device=device), torch.zeros(size, dtype=torch.long, device=device)
        unknown_C = torch.full((size,), -torch.inf, dtype=torch.float64, device=device)
        held = _Responses(blank.long(), blank, blank, zero_C, unknown_C)
        return _State(held, zero_C, zero_C - 1, torch.arange(size, device=device), blank, blank)

    def _step(self, state: _State) -> tuple[_State, _Decided | None]:
        """One more token for every row; where that ends a proposal, it is decided and the next one begins."""
        logits_NV = self.decoder.next_logits()
        drawn = draw(logits_NV, self._uniform(state.chain_N), self.sampler.proposal_temperature)
        place_N1 = self.decoder.length_N[:, None]
        state = replace(
            state,
            logp_NT=state.logp_NT.scatter(1, place_N1, drawn.logp_N[:, None]),
            logq_NT=state.logq_NT.scatter(1, place_N1, drawn.logq_N[:, None]),
        )
        self.decoder.append(drawn.token_N)
        over_N = self.decoder.ends_V[drawn.token_N] | (self.decoder.length_N == self.limit)
        rows = over_N.nonzero()[:, 0]
        if not len(rows):
            return state, None
        going = state.decided_C[state.chain_N[rows]] < self.sampler.steps
        state, decided = self._decide(state, rows[going])  # the others are done, and idle along until they leave
        return self._leave(self._begin(state, rows)), decided

    def _decide(self, state: _State, rows_S: Tensor) -> tuple[_State, _Decided | None]:
        """These rows hold whole proposals: accept or reject each, then choose where to cut what its chain stands on."""
        if not len(rows_S):
            return state, None
        chain_S = state.chain_N[rows_S]
        old, cut_S, new = state.held.at(chain_S), state.cut_C[chain_S], self._proposed(state, rows_S)
        accepted_S = self._uniform(chain_S).log() < _log_ratio(old, new, cut_S)
        self.decoder.bookmark(rows_S[accepted_S])
        held = state.held.put(chain_S[accepted_S], new.at(accepted_S))
        now, number_S = held.at(chain_S), state.decided_C[chain_S] + 1
        next_cut_S = (self._uniform(chain_S) * now.length_R).long()
        state = replace(
            state,
            held=held,
            cut_C=state.cut_C.index_copy(0, chain_S, next_cut_S),
            decided_C=state.decided_C.index_copy(0, chain_S, number_S),
        )
        logp_S = _masked(now.logp_RT, 0, now.length_R).sum(1)
        return state, _Decided(chain_S, number_S, accepted_S, cut_S, old.length_R, new.length_R, logp_S)

    def _proposed(self, state: _State, rows_S: Tensor) -> _Responses:
        tokens_ST, length_S = self.decoder.tokens_NT[rows_S], self.decoder.length_N[rows_S]
        logp_ST, logq_ST = state.logp_NT[rows_S], state.logq_NT[rows_S]
        logp_S = _masked(logp_ST, 0, length_S).sum(1)
        reward_S = torch.zeros_like(logp_S)
        if self.grade_fn and self.sampler.beta is not None:
            owners = (self.first + state.chain_N[rows_S] // self.n).tolist()
            grades = self.grade_fn(owners, self._rollouts(tokens_ST, logp_ST, length_S))
            reward_S = torch.tensor([grade.reward for grade in grades], dtype=torch.float64, device=rows_S.device)
        log_S = self.sampler.objective.log_target(reward_S, logp_S)
        complete_S = self.decoder.ends_V[tokens_ST.gather(1, length_S[:, None] - 1)[:, 0]]
        target_S = torch.where(complete_S & ~log_S.isnan(), log_S, -torch.inf)
        return _Responses(tokens_ST, logp_ST, logq_ST, length_S, target_S)

    def _begin(self, state: _State, rows_S: Tensor) -> _State:
        """These rows go back to what their chains stand on, up to the cut."""
        chain_S = state.chain_N[rows_S]
        self.decoder.rewind(rows_S, state.cut_C[chain_S])
        return replace(
            state,
            logp_NT=state.logp_NT.index_copy(0, rows_S, state.held.logp_RT[chain_S]),
            logq_NT=state.logq_NT.index_copy(0, rows_S, state.held.logq_RT[chain_S]),
        )

    def _leave(self, state: _State) -> _State:
        """Chains that have made their steps leave the batch, several at a time."""
        going_N = state.decided_C[state.chain_N] < self.sampler.steps
        if going_N.sum() > (1 - LEAVE) * len(going_N):
            return state
        stay = going_N.nonzero()[:, 0]
        if len(stay):
            self.decoder.select(stay)
        return replace(state, chain_N=state.chain_N[stay], logp_NT=state.logp_NT[stay], logq_NT=state.logq_NT[stay])

    def _uniform(self, chain_S: Tensor) -> Tensor:
        return self.streams.next(chain_S.cpu().numpy() + self.first * self.n).to(chain_S.device)

    def _rollouts(self, tokens_RT: Tensor, logp_RT: Tensor, length_R: Tensor) -> list[Rollout]:
        rows = zip(tokens_RT.tolist(), logp_RT.tolist(), length_R.tolist(), strict=True)
        return self.model.rollouts([(tokens[:end], logps[:end]) for tokens, logps, end in rows])

    def _info(self, state: _State, seen: _Decided, seconds: float) -> Info:
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


def _log_ratio(old: _Responses, new: _Responses, cut_R: Tensor) -> Tensor:
    """log of the Metropolis-Hastings ratio, float64 [R]: targets, tails, and the choice of the cut, there and back.

    Infinite for a chain without a state, or with one that the distribution does not know: it takes what comes.
    """
    back_R = _masked(old.logq_RT, cut_R, old.length_R).sum(1) - new.length_R.log()
    there_R = _masked(new.logq_RT, cut_R, new.length_R).sum(1) - old.length_R.log()
    return torch.where(old.target_R == -torch.inf, torch.inf, new.target_R - old.target_R + back_R - there_R)


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
