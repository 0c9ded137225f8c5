"""Beam search: the likeliest responses, as far as a beam of some width finds them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.samplers.base import GradeFn, Info, Samples, decoded_here, stopwatch
from tiltlab.types import Prompt


@dataclass(frozen=True)
class Beam:
    """Targets the `width` responses of highest log p / length^length_penalty; a search, no distribution. With a penalty
    of 0 and a width of at least the number of prefixes of any one length it finds them exactly, else approximately.

    width: prefixes that are followed side by side, at least 1.
    length_penalty: exponent of the length, in tokens; 0 leaves log p as it is.

    The n responses to a prompt are its n best, best first (again from the start where there are fewer). Finished
    responses stay in competition with growing ones until `width` of them beat all that could still grow: with penalty 0
    a prefix can only lose, with another one the search goes on to the token limit. `seed` changes nothing.
    """

    width: int
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"a beam needs a width of at least 1, got {self.width}")

    def drawn(self, n: int) -> int:
        """The width, however many responses are asked for."""
        return self.width

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
        """The n best responses to each prompt, best first (see `Sampler`). Every prefix that is followed counts as a
        token drawn."""
        with stopwatch() as seconds:
            search = _Search(self, model, prompts, max_tokens)
            while search.step():
                pass
            rollouts = []
            for best in search.best():
                kept = model.rollouts(best)
                rollouts.append([kept[i % len(kept)] for i in range(n)])
            info = Info(search.drawn, seconds=seconds(), warnings=decoded_here(model, "Beam"))
        return Samples(rollouts, info)


class _Search:
    """Up to `width` growing prefixes a prompt, side by side in one decoder, and the best finished responses."""

    def __init__(self, beam: Beam, model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int) -> None:
        self.beam, self.limit = beam, max_tokens
        self.decoder = model.decoder(prompts, n=1, max_tokens=max_tokens)
        self.prompt_N = list(range(len(prompts)))
        self.logps: list[list[float]] = [[] for _ in prompts]
        self.total_N = torch.zeros(len(prompts), dtype=torch.float64)
        self.finished: list[list[tuple[float, list[int], list[float]]]] = [[] for _ in prompts]
        self.drawn = 0

    def step(self) -> bool:
        """Read one token a row and choose the best continuations. False once nothing is left to grow."""
        logp_NV = self.decoder.next_logits().log_softmax(-1).cpu()
        tokens_NT, length = self.decoder.tokens_NT.cpu(), int(self.decoder.length_N[0])
        ends_V = self.decoder.ends_V.cpu()
        rows: list[int] = []
        tokens: list[int] = []
        for p in dict.fromkeys(self.prompt_N):
            mine = [row for row, owner in enumerate(self.prompt_N) if owner == p]
            for row, token in self._extensions(logp_NV[mine], self.total_N[mine], ends_V):
                row, logp = mine[row], float(logp_NV[mine[row], token])
                if ends_V[token] or length + 1 == self.limit:
                    whole = [*tokens_NT[row, :length].tolist(), token]
                    self._finish(p, whole, [*self.logps[row], logp], truncated=not ends_V[token])
                elif len([r for r in rows if self.prompt_N[r] == p]) < self.beam.width:
                    rows.append(row)
                    tokens.append(token)
        return self._go_on(rows, tokens, logp_NV)

    def _extensions(self, logp_MV: Tensor, total_M: Tensor, ends_V: Tensor) -> list[tuple[int, int]]:
        """(row, token), best first: enough to fill the beam even if all that end come first."""
        score_MV = total_M[:, None] + logp_MV.double()
        count = min(score_MV.isfinite().sum().item(), self.beam.width + int(ends_V.sum()) * len(total_M))
        best = score_MV.flatten().topk(int(count)).indices.tolist()
        return [divmod(index, score_MV.shape[1]) for index in best]

    def _finish(self, p: int, tokens: list[int], logps: list[float], *, truncated: bool) -> None:
        score = -math.inf if truncated else sum(logps) / len(tokens) ** self.beam.length_penalty
        self.finished[p].append((score, tokens, logps))
        self.finished[p].sort(key=lambda response: -response[0])
        del self.finished[p][self.beam.width :]

    def _go_on(self, rows: list[int], tokens: list[int], logp_NV: Tensor) -> bool:
        total = [float(self.total_N[row] + logp_NV[row, token]) for row, token in zip(rows, tokens, strict=True)]
        keep = [i for i, row in enumerate(rows) if not self._beaten(self.prompt_N[row], total[i])]
        if not keep:
            return False
        rows, tokens = [rows[i] for i in keep], [tokens[i] for i in keep]
        self.drawn += len(rows)
        self.logps = [[*self.logps[r], float(logp_NV[r, t])] for r, t in zip(rows, tokens, strict=True)]
        self.total_N = torch.tensor([total[i] for i in keep], dtype=torch.float64)
        self.prompt_N = [self.prompt_N[row] for row in rows]
        device = self.decoder.ends_V.device
        self.decoder.select(torch.tensor(rows, device=device))
        self.decoder.append(torch.tensor(tokens, device=device))
        return True

    def _beaten(self, p: int, total: float) -> bool:
        finished = self.finished[p]
        return self.beam.length_penalty == 0 and len(finished) == self.beam.width and finished[-1][0] >= total

    def best(self) -> list[list[tuple[list[int], list[float]]]]:
        return [[(tokens, logps) for _, tokens, logps in finished] for finished in self.finished]
