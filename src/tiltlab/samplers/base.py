"""What every sampler is, a frozen value that draws n responses to each prompt from a model, and what it gives."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tiltlab.models.base import LanguageModel
from tiltlab.models.engine import DrawnElsewhere
from tiltlab.seeds import derive
from tiltlab.types import Grade, Prompt, Rollout

GradeFn = Callable[[Sequence[int], Sequence[Rollout]], list[Grade]]
"""Grades responses, for samplers that need rewards or answers: (number of the prompt of each among those of the call,
the responses) -> a grade for each, in order. A reward of NaN says that nobody knows."""


@dataclass(frozen=True)
class Info:
    """What a call cost and how well it went.

    drawn: tokens drawn from the model, those of responses that were given up included.
    rescored: tokens read again to be scored.
    seconds: wall time.
    notes: whatever the sampler has to say about itself, by name; figures a prompt stand in lists. JSON can hold it.
    warnings: reasons to doubt that the samples follow the distribution that they should, or were drawn by whom they
        should, one line each.
    """

    drawn: int
    rescored: int = 0
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Samples:
    """What a sampler returns, `[P][n]`: n responses to each prompt, in the prompts' order, to be taken as they are.

    rollouts: with log p a token under the model at temperature 1, in nats, whatever distribution they were drawn from.
    info: what it took.
    """

    rollouts: list[list[Rollout]]
    info: Info


class Sampler(Protocol):
    """A frozen value, all settings in it: equal samplers draw the same from the same model, prompts and seed. Settings
    without a meaning raise ValueError as it is made. Each says which distribution it targets, and by whose method."""

    def drawn(self, n: int) -> int:
        """How many responses' worth of tokens are drawn for n responses to a prompt, at most."""
        ...

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
        """Draw n responses to each prompt.

        n: at least 1.
        max_tokens: the limit on a response, EOS included.
        seed: of all randomness; the other prompts of a call change nothing for a prompt.
        grade_fn: for those that need rewards or answers; the others ignore it.

        Raises ValueError where a grade_fn is needed and there is none, and whatever the model raises (UserError for a
        prompt that it cannot take, or where it cannot go back in a response).
        """
        ...


def drawn_tokens(rollouts: Sequence[Sequence[Rollout]]) -> int:
    """Tokens of all these responses together."""
    return sum(len(rollout.tokens) for group in rollouts for rollout in group)


class Streams:
    """A stream of uniform numbers in [0, 1) for each row, of its own.

    seed: of all streams.
    prompts: of the call.
    rows: how many each prompt has.

    Rows are (prompt, number of the row): neither the other prompts of a call nor when rows leave changes what a row
    gets. A prompt that comes twice gets other numbers the second time.
    """

    BLOCK = 64

    def __init__(self, seed: int, prompts: Sequence[Prompt], rows: int) -> None:
        seen: Counter[str] = Counter()
        self._generators = []
        for prompt in map(repr, prompts):
            self._generators += [np.random.default_rng(derive(seed, prompt, seen[prompt], row)) for row in range(rows)]
            seen[prompt] += 1
        self._block = np.stack([generator.random(self.BLOCK) for generator in self._generators])
        self._used = np.zeros(len(self._generators), dtype=int)

    def next(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """The next number of each of these rows (no row twice): float64."""
        rows = np.asarray(rows)
        for row in rows[self._used[rows] == self.BLOCK]:
            self._block[row] = self._generators[row].random(self.BLOCK)
            self._used[row] = 0
        values = self._block[rows, self._used[rows]]
        self._used[rows] += 1
        return torch.from_numpy(values)


def decoded_here(model: LanguageModel, sampler: str) -> tuple[str, ...]:
    """What a sampler that chooses each token itself has to say where another engine draws for the model."""
    if not isinstance(model, DrawnElsewhere):
        return ()
    return (f"{sampler} chooses each token itself, which no engine lets it: drawn by the model itself, not the engine",)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yields a function that says how many seconds have passed."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start


def in_turns(call: Callable[[Sequence[Prompt], int], Samples], prompts: Sequence[Prompt], at_once: int) -> Samples:
    """What a call gives for all prompts, made for some of them at a time and put together.

    call: takes some prompts, and the number of the first of them among all.
    prompts: at least one.
    at_once: how many prompts each call is to take.
    """
    parts = [call(prompts[i : i + at_once], i) for i in range(0, len(prompts), at_once)]
    return Samples([group for part in parts for group in part.rollouts], together([part.info for part in parts]))


def together(infos: Sequence[Info]) -> Info:
    """One Info for several calls: costs are added, and figures a prompt laid end to end.

    infos: of calls of one sampler, at least one; all have the same notes.
    """
    notes = {name: [value for info in infos for value in info.notes[name]] for name in infos[0].notes}
    warnings = tuple(dict.fromkeys(warning for info in infos for warning in info.warnings))
    return Info(
        sum(i.drawn for i in infos), sum(i.rescored for i in infos), sum(i.seconds for i in infos), notes, warnings
    )
