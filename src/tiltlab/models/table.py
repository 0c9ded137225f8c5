"""A language small enough to enumerate: the oracle of every exact test, and the stage of `tiltlab lab`.

Every response is a string over a few symbols that ends with EOS and holds at most `max_symbols` symbols (after that
many, EOS is the only choice). The distribution of the next token is a row of a table of logits, one row a prompt and
prefix, so each sequence's probability, every optimum and every expectation can be computed by summing over all of them.

Shapes: _P prompts, _G responses of a group, _T tokens, _N rows of a decoder, _S all sequences of the language.

Left out on purpose: generalisation between prefixes. A table can represent every distribution over its sequences.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tiltlab.models.base import TokenLogprobs, pad_tokens
from tiltlab.models.decoding import noise
from tiltlab.models.engine import Drawn, Request, grouped
from tiltlab.models.table_decoder import TableDecoder
from tiltlab.models.weights import take
from tiltlab.objective import Objective
from tiltlab.types import Prompt, Rollout

SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


class TableLanguage(nn.Module):
    """A softmax policy with one row of logits for each prompt and prefix. Satisfies the `Policy` protocol.

    logits: [prompts, prefixes, symbols + 1], the last column being EOS. A prefix is numbered as in a complete tree:
        the empty one is 0, and the child of prefix i by symbol s is i * symbols + 1 + s.
    prompts: the only ones that it takes; any other is a KeyError.

    Raises ValueError where prefixes are no complete tree, or prompts and tables differ in number.

    With `ignore_eos` a language of strings has nothing to say after EOS; here it starts again from the empty prefix, as
    a model trained on documents laid end to end would.
    """

    def __init__(self, logits: Tensor, prompts: Sequence[str] = ("",)) -> None:
        super().__init__()
        self.prompts = tuple(prompts)
        self._rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        self.symbols = logits.shape[-1] - 1
        self.eos = self.symbols
        self.max_symbols = _depth(self.symbols, logits.shape[1])
        if logits.shape[0] != len(self.prompts):
            raise ValueError(f"{len(self.prompts)} prompts need as many tables, got {logits.shape[0]}")
        self.logits = nn.Parameter(logits.clone())
        deepest = count_prefixes(self.symbols, self.max_symbols) - self.symbols**self.max_symbols
        self._full = torch.arange(logits.shape[1]) >= deepest  # prefixes that only EOS can follow
        self._version = 0

    @classmethod
    def random(
        cls, seed: int, *, symbols: int = 3, max_symbols: int = 5, prompts: Sequence[str] = ("",), spread: float = 1.0
    ) -> "TableLanguage":
        """A language whose logits are independent and normal.

        seed: of the logits.
        symbols: how many there are, EOS not counted; at most 26.
        max_symbols: the most that a response holds.
        prompts: each gets logits of its own.
        spread: standard deviation of a logit.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (len(prompts), count_prefixes(symbols, max_symbols), symbols + 1)
        return cls(spread * torch.randn(shape, generator=generator), prompts)

    def clone(self) -> "TableLanguage":
        """An independent copy with the same weights."""
        return TableLanguage(self.logits.detach(), self.prompts)

    # The language, enumerated

    def sequences(self) -> list[tuple[int, ...]]:
        """All S complete responses, EOS included, shorter ones first."""
        levels: list[list[tuple[int, ...]]] = [[()]]
        for _ in range(self.max_symbols):
            levels.append([(*prefix, s) for prefix in levels[-1] for s in range(self.symbols)])
        return [(*prefix, self.eos) for level in levels for prefix in level]

    def enumerated(self) -> list[list[Rollout]]:
        """Every prompt with every response, in the order of `sequences`: [prompts, S]."""
        rollouts = [self._rollout(tokens, (), complete=True) for tokens in self.sequences()]
        return [rollouts for _ in self.prompts]

    def sequence_logprobs(self) -> Tensor:
        """log p of every sequence: [prompts, S], float32, with gradients; rows of exp() sum to 1."""
        return self.logprobs(self.prompts, self.enumerated()).total_PG

    # The LanguageModel protocol

    @property
    def version(self) -> int:
        """How many updates it was told of."""
        return self._version

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """The number of the prompt, as one token. Raises KeyError for a prompt that the language does not have."""
        return [self._index(prompt)]

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float = 1.0,
        max_tokens: int,
        seed: int,
        ignore_eos: bool = False,
    ) -> list[list[Rollout]]:
        """As the protocol says (`LanguageModel.generate`), but that a response depends on its row's place in the batch.

        Raises KeyError for a prompt that the language does not have.
        """
        row = torch.tensor([self._index(prompt) for prompt in prompts]).repeat_interleave(n)
        uniform = torch.rand(len(row), max_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        drawn_N = self._draw(row, torch.zeros_like(row), uniform, temperature, ignore_eos)
        return grouped(self, drawn_N, n, self._version, ignore_eos=ignore_eos)

    def logprobs(
        self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """As the protocol says (`LanguageModel.logprobs`).

        Raises KeyError for a prompt that the language does not have.
        """
        tokens_PGT, mask_PGT = pad_tokens(rollouts)
        row_PG = torch.tensor([self._index(prompt) for prompt in prompts])[:, None].expand(tokens_PGT.shape[:2])
        prefixes = [torch.zeros_like(row_PG)]
        for t in range(tokens_PGT.shape[-1] - 1):
            prefixes.append(self._next_prefix(prefixes[-1], tokens_PGT[..., t]))
        prefix_PGT, row_PGT = torch.stack(prefixes, -1), row_PG[..., None]
        logp = self._next_logprobs(temperature)
        token_PGT = logp[row_PGT, prefix_PGT, tokens_PGT].masked_fill(~mask_PGT, 0.0)
        entropy = -(logp.exp() * logp.clamp(min=-1e30)).sum(-1).detach()
        return TokenLogprobs(token_PGT, mask_PGT, entropy[row_PGT, prefix_PGT].masked_fill(~mask_PGT, 0.0))

    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> TableDecoder:
        """As the protocol says (`LanguageModel.decoder`).

        Raises KeyError for a prompt that the language does not have.
        """
        row_N = torch.tensor([self._index(prompt) for prompt in prompts]).repeat_interleave(n)
        return TableDecoder(self, row_N, max_tokens)

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """More rows than anybody asks for."""
        return 1 << 20

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """As the protocol says (`LanguageModel.rollouts`); complete where the last token is EOS."""
        return [
            self._rollout(tuple(tokens), tuple(logps), complete=self.eos in tokens[-1:]) for tokens, logps in responses
        ]

    def fingerprint(self) -> str:
        """SHA-256 of the logits' bytes, hexadecimal."""
        return hashlib.sha256(self.logits.detach().numpy().tobytes()).hexdigest()

    # The Policy protocol

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """The table of logits, the only parameter."""
        return {"logits": self.logits}

    def updated(self) -> None:
        """Count one more update."""
        self._version += 1

    def save(self, folder: Path) -> None:
        """Write the table to `table.safetensors` in a folder that exists."""
        save_file({"logits": self.logits.detach()}, folder / "table.safetensors")

    def restore(self, folder: Path, version: int) -> None:
        """Read back what `save` wrote, after which `version` is as given."""
        with torch.no_grad():
            self.logits.copy_(load_file(folder / "table.safetensors")["logits"])
        self._version = version

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self.logits.numel() * self.logits.element_size()

    # To be drawn from as an engine is

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """As the protocol says (`Engine.draw`). A request's ids are the number of the prompt and a response so far."""
        drawn: dict[int, Drawn] = {}
        for limit in {request.limit for request in requests_N}:
            rows = [row for row, request in enumerate(requests_N) if request.limit == limit]
            some = [requests_N[row] for row in rows]
            table_N = torch.tensor([request.ids[0] for request in some])
            prefix_N = torch.tensor([self._prefix(request.ids[1:]) for request in some])
            drawn |= zip(rows, self._draw(table_N, prefix_N, noise(some), temperature, ignore_eos), strict=True)
        return [drawn[row] for row in range(len(requests_N))]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The table."""
        yield "logits", self.logits.detach()

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take another language's table. Raises ValueError where it gives none."""
        take({"logits": self.logits.detach()}, weights)

    # Inside

    def _next_logprobs(self, temperature: float = 1.0) -> Tensor:
        symbols_forbidden = torch.arange(self.symbols + 1) != self.eos
        allowed = self.logits.masked_fill(self._full[:, None] & symbols_forbidden, -torch.inf)
        return (allowed / temperature).log_softmax(-1)

    @torch.no_grad()
    def _draw(
        self, row_N: Tensor, prefix: Tensor, uniform_NT: Tensor, temperature: float, ignore_eos: bool
    ) -> list[Drawn]:
        logp = self._next_logprobs()
        cumulative = (self._next_logprobs(temperature) if temperature != 1 else logp).double().exp().cumsum(-1)
        going = torch.ones_like(row_N, dtype=torch.bool)
        tokens, logprobs, lengths = [], [], torch.zeros_like(row_N)
        for uniform_N in uniform_NT.unbind(1):
            at = uniform_N[:, None] * cumulative[row_N, prefix, -1:]
            token = torch.searchsorted(cumulative[row_N, prefix], at, right=True).clamp(max=self.eos)[:, 0]
            tokens.append(token)
            logprobs.append(logp[row_N, prefix, token])
            lengths += going
            prefix = self._next_prefix(prefix, token)
            if not ignore_eos:
                going = going & (token != self.eos)
                if not going.any():
                    break
        drawn = torch.stack(tokens, 1).tolist(), torch.stack(logprobs, 1).tolist(), lengths.tolist(), going.tolist()
        return [
            Drawn(tuple(ids[:end]), tuple(logps[:end]), not unfinished)
            for ids, logps, end, unfinished in zip(*drawn, strict=True)
        ]

    def _next_prefix(self, prefix: Tensor, token: Tensor) -> Tensor:
        # A full prefix has no children: a symbol that could not follow it (the padding of a finished row) stays put.
        child = prefix * self.symbols + 1 + token
        moved = torch.where(self._full[prefix], prefix, child)
        return torch.where(token == self.eos, 0, moved)

    def _prefix(self, tokens: Sequence[int]) -> int:
        prefix = 0
        for token in tokens:
            prefix = 0 if token == self.eos else prefix * self.symbols + 1 + token
        return prefix

    def _index(self, prompt: Prompt) -> int:
        if not isinstance(prompt, str) or prompt not in self._rows:
            raise KeyError(f"this language has no prompt {prompt!r}; it has {self.prompts}")
        return self._rows[prompt]

    def _rollout(self, tokens: tuple[int, ...], logprobs: tuple[float, ...], complete: bool) -> Rollout:
        shown = tokens[: tokens.index(self.eos)] if self.eos in tokens else tokens
        return Rollout(tokens, "".join(SYMBOLS[token] for token in shown), complete, logprobs, self._version)


# Exact answers, by summing over every sequence


def rewards_of(language: TableLanguage, rewards: Mapping[str, float]) -> Tensor:
    """Rewards by text, laid out as `sequences` is: float32 [P, S], the same for each prompt.

    rewards: has the text of every sequence; KeyError for one that it lacks.
    """
    row = torch.tensor([rewards[rollout.text] for rollout in language.enumerated()[0]])
    return row.expand(len(language.prompts), -1)


def optimum(objective: Objective, reference: TableLanguage, rewards_PS: Tensor) -> Tensor:
    """The exact optimum of the objective: probabilities, float64 [P, S].

    objective: the regime; its beta is `kl`.
    reference: p, the base.
    rewards_PS: [P, S], of every sequence (`rewards_of`).

    For beta > 0 the normalised exp(log_target). For beta = 0 the uniform distribution on the argmax of w r + s l, which
    stands for any distribution on that set.
    """
    logp_PS = reference.sequence_logprobs().detach()
    tokens_S = sequence_lengths(reference)
    if objective.kl:
        target_PS: Tensor = objective.log_target(rewards_PS, logp_PS, tokens_S)
        return target_PS.double().softmax(-1)
    score_PS: Tensor = objective.score(rewards_PS, logp_PS, logp_PS, tokens_S)
    best_PS = (score_PS >= score_PS.amax(-1, keepdim=True) - 1e-6).double()
    return best_PS / best_PS.sum(-1, keepdim=True)


def total_variation(left: Tensor, right: Tensor) -> Tensor:
    """Half the L1 distance along the last axis: 0 for equal distributions, 1 for disjoint ones.

    left, right: probabilities [..., S].
    """
    return (left.double() - right.double()).abs().sum(-1) / 2


def sequence_lengths(language: TableLanguage) -> Tensor:
    """Tokens in each sequence, EOS included: float32 [S]."""
    return torch.tensor([float(len(tokens)) for tokens in language.sequences()])


def counts(language: TableLanguage, rollouts: Iterable[Rollout]) -> Tensor:
    """How often each sequence occurs among complete rollouts: [S], float64."""
    position = {tokens: i for i, tokens in enumerate(language.sequences())}
    tally = torch.zeros(len(position), dtype=torch.float64)
    for rollout in rollouts:
        if rollout.complete:
            tally[position[rollout.tokens]] += 1
    return tally


def count_prefixes(symbols: int, max_symbols: int) -> int:
    """Strings of at most `max_symbols` symbols: the rows of the table, and the number of sequences."""
    return sum(symbols**depth for depth in range(max_symbols + 1))


def _depth(symbols: int, prefixes: int) -> int:
    depth = 0
    while count_prefixes(symbols, depth) < prefixes:
        depth += 1
    if count_prefixes(symbols, depth) != prefixes:
        raise ValueError(f"{prefixes} rows are no complete tree over {symbols} symbols")
    return depth
