"""Tails, and chains that move by them, where another engine draws: a prompt and a prefix go out, the rest comes back.

An engine says how likely its tokens were to itself, at temperature 1. What they are to the model that samples are to be
of, the model says: everything that came back is scored again. So log p is right whatever the engine's weights are, and
log q is

- at temperature 1 what the engine says: exact, even where its weights are old or rounded,
- at another the model's own: as right as the engine's weights are the model's. How far they are off is measured.

Shapes: _C chains, _S some of them, _T tokens of a response.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.engine import Drawn, Draws, Request
from tiltlab.samplers.tail_moves import Decided, Responses, log_ratio
from tiltlab.seeds import derive
from tiltlab.types import Prompt, Rollout

OFF = 0.01
"""Nats a token between the engine's log p and the model's, on average, from which samples are doubted."""


class Requests:
    """What is asked of an engine for n chains of each prompt. Chain c belongs to prompt c // n.

    model: draws by request, and scores.
    limit: the most tokens of a response.
    seed: of all that is drawn. What a chain asks for depends on the prompts beside it no more than it does elsewhere.

    Raises UserError for a prompt that the model cannot take.
    """

    def __init__(self, model: Draws, prompts: Sequence[Prompt], n: int, limit: int, seed: int) -> None:
        self.model, self.limit, self._prompts, self._n = model, limit, prompts, n
        self._ids = [tuple(model.encode(prompt, limit)) for prompt in prompts]
        seen: Counter[str] = Counter()
        self._seeds: list[int] = []
        for prompt in map(repr, prompts):
            self._seeds += [derive(seed, "requests", prompt, seen[prompt], row) for row in range(n)]
            seen[prompt] += 1
        self._asked = [0] * len(self._seeds)
        self.drawn = self.rescored = 0
        self._gap = 0.0

    def __len__(self) -> int:
        """Chains."""
        return len(self._seeds)

    @torch.no_grad()
    def drawn_on(self, chain_S: Tensor, held: Responses, cut_S: Tensor, limit: int, temperature: float) -> Responses:
        """Responses that keep the first tokens of others, with the rest drawn; their target is not known yet (NaN).

        chain_S: int64, whose they are, none twice.
        held: [S], what they keep.
        cut_S: int64, how many tokens of it.
        limit: the most tokens that each has then, more than it keeps.
        temperature: that the rest is drawn at.
        """
        chains = chain_S.tolist()
        kept = [row[:cut] for row, cut in zip(held.tokens_RT.tolist(), cut_S.tolist(), strict=True)]
        asked = [
            Request(self._ids[chain // self._n] + tuple(row), limit - len(row), self._seed(chain))
            for chain, row in zip(chains, kept, strict=True)
        ]
        drawn_S = self.model.draw(asked, temperature, ignore_eos=False)
        whole = [(*row, *drawn.tokens) for row, drawn in zip(kept, drawn_S, strict=True)]
        length_S = torch.tensor([len(row) for row in whole])
        logp_ST = self._scored(chains, whole, 1.0)
        theirs_ST = self._pasted(held.logq_RT, cut_S, drawn_S)
        tail_ST = torch.arange(self.limit) >= cut_S[:, None]
        self._gap += float((theirs_ST - logp_ST).abs()[tail_ST & (torch.arange(self.limit) < length_S[:, None])].sum())
        logq_ST = theirs_ST if temperature == 1 else self._scored(chains, whole, temperature)
        self.drawn += sum(len(drawn.tokens) for drawn in drawn_S)
        tokens_ST = torch.tensor([[*row, *[0] * (self.limit - len(row))] for row in whole])
        return Responses(tokens_ST, logp_ST, logq_ST, length_S, torch.full(length_S.shape, torch.nan).double())

    @torch.no_grad()
    def logq(self, chain_S: Tensor, responses: Responses, temperature: float) -> Tensor:
        """The model's log-probability of each token at a temperature: float32 [S, T]."""
        whole = [tuple(tokens) for tokens, _ in responses.rows()]
        return self._scored(chain_S.tolist(), whole, temperature)

    def ended(self, token_S: Tensor) -> Tensor:
        """Which of these tokens end a response: bool [S]."""
        different = token_S.unique()
        told = self.model.rollouts([([token], [0.0]) for token in different.tolist()])
        return torch.isin(token_S, different[torch.tensor([one.complete for one in told], dtype=torch.bool)])

    @property
    def mismatch(self) -> float:
        """Nats a token between the engine's log p and the model's, on average over all that was drawn."""
        return self._gap / max(1, self.drawn)

    def doubts(self, sampler: str, temperature: float) -> list[str]:
        """What is to be said against samples of draws at this temperature, one line each."""
        if temperature == 1 or self.mismatch < OFF:
            return []
        return [
            f"{sampler}: the engine's log p is {self.mismatch:.2g} nats a token off the model's, and its draws at "
            f"temperature {temperature:g} were taken for the model's own; with temperature 1 it would be corrected for"
        ]

    def _seed(self, chain: int) -> int:
        self._asked[chain] += 1
        return derive(self._seeds[chain], self._asked[chain])

    def _pasted(self, kept_ST: Tensor, cut_S: Tensor, drawn_S: Sequence[Drawn]) -> Tensor:
        """log q of what is kept, and behind it the engine's log p of what it drew."""
        rows = [
            [*[0.0] * cut, *drawn.logprobs, *[0.0] * (self.limit - cut - len(drawn.logprobs))]
            for cut, drawn in zip(cut_S.tolist(), drawn_S, strict=True)
        ]
        place_T = torch.arange(self.limit)
        length_S = cut_S + torch.tensor([len(drawn.logprobs) for drawn in drawn_S])
        theirs_ST = (place_T >= cut_S[:, None]) & (place_T < length_S[:, None])
        return torch.where(theirs_ST, torch.tensor(rows), kept_ST)

    def _scored(self, chains: Sequence[int], whole: Sequence[tuple[int, ...]], temperature: float) -> Tensor:
        """log-probability of each token: float32 [S, T], 0 beyond the end. Prompts have as many responses as the one
        with most, some of them twice."""
        rows_P: dict[int, list[int]] = {}
        for row, chain in enumerate(chains):
            rows_P.setdefault(chain // self._n, []).append(row)
        most = max(map(len, rows_P.values()))
        padded = [rows + rows[:1] * (most - len(rows)) for rows in rows_P.values()]
        rollouts = [[Rollout(whole[row], "", False, (0.0,) * len(whole[row]), 0) for row in rows] for rows in padded]
        prompts = [self._prompts[prompt] for prompt in rows_P]
        token_PGT = self.model.logprobs(prompts, rollouts, temperature=temperature).token_PGT.cpu()
        scored_ST = torch.zeros(len(whole), self.limit)
        scored_ST[torch.tensor(padded).flatten(), : token_PGT.shape[-1]] = token_PGT.flatten(0, 1)
        self.rescored += sum(map(len, whole))
        return scored_ST


@dataclass(frozen=True)
class Rounds:
    """The kernel of `tail_moves`, a round of requests at a time: every chain proposes once in each.

    requests: for as many chains as there are.
    steps, temperature, uniform, log_target: as in `Tails`.
    """

    requests: Requests
    steps: int
    temperature: float
    uniform: Callable[[Tensor], Tensor]
    log_target: Callable[[Tensor, Responses], Tensor]

    def drawn_first(self) -> tuple[Responses, list[Decided]]:
        """What chains stand on after a first draw and their steps, and what was decided."""
        chains = len(self.requests)
        nothing = Responses.nothing(chains, self.requests.limit, torch.device("cpu"))
        everyone = torch.arange(chains)
        held, first = self._decided(nothing, everyone, nothing.length_R, self.requests.limit, 0)
        held, seen = self.moved(held, everyone, self.requests.limit)
        return held, [first, *seen]

    def moved(self, held: Responses, chain_C: Tensor, limit: int) -> tuple[Responses, list[Decided]]:
        """What chains stand on after their steps, and what was decided.

        chain_C: int64, whose requests they make, none twice.
        limit: tokens at which a proposal is whole, even without an end.
        """
        seen, row_C = [], torch.arange(len(chain_C))
        for number in range(1, self.steps + 1):
            cut_C = (self.uniform(row_C) * held.length_R).long()
            held, decided = self._decided(held, chain_C, cut_C, limit, number)
            seen.append(decided)
        return held, seen

    def _decided(
        self, held: Responses, chain_C: Tensor, cut_C: Tensor, limit: int, number: int
    ) -> tuple[Responses, Decided]:
        row_C = torch.arange(len(chain_C))
        new = self.requests.drawn_on(chain_C, held, cut_C, limit, self.temperature)
        new = new._replace(target_R=self.log_target(row_C, new))
        accepted_C = self.uniform(row_C).log() < log_ratio(held, new, cut_C)
        now = held.put(accepted_C.nonzero()[:, 0], new.at(accepted_C))
        number_C = torch.full_like(cut_C, number)
        return now, Decided(row_C, number_C, accepted_C, cut_C, held.length_R, new.length_R, now.total_R)
