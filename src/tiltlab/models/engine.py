"""A policy whose responses come from another engine than the one that trains it. The loop does not change.

    Engine                   holds a copy of the weights, says which version of them, takes newer ones, draws tokens.
    Split(trained, engine)   is a Policy: `generate` by the engine, everything else by the trained model.
    Replica                  is the plainest engine, a copy of the trained model: the one that others are held against.

What an engine draws from is never quite what the trainer computes, so whoever trains on it weighs responses by
pi / q (training/importance.py).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from tiltlab.models.base import Decoder, LanguageModel, Policy, TokenLogprobs
from tiltlab.seeds import derive
from tiltlab.types import Prompt, Rollout

Weights = Callable[[], Iterable[tuple[str, Tensor]]]
"""Full tensors by name, in the base model's own naming; called once a version."""


class Request(NamedTuple):
    """One continuation that is wanted.

    ids: token ids of what it continues.
    limit: the most tokens it may have, the one that ends it included.
    seed, row: of its randomness. Rows with one seed, as the responses to one prompt have, differ in `row`.
    """

    ids: tuple[int, ...]
    limit: int
    seed: int
    row: int = 0

    @property
    def own_seed(self) -> int:
        """One number for both, for an engine that makes its own random numbers: 63 bits."""
        return derive(self.seed, self.row)


class Drawn(NamedTuple):
    """One response, before its text is known.

    tokens: ids, the one that ended it included.
    logprobs: of each token, at temperature 1, in nats.
    complete: whether it ended of itself; else the limit truncated it.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    complete: bool


class Engine(Protocol):
    """Draws from a copy of the weights.

    version: of the weights it has; -1 before the first `update`.
    """

    version: int

    def update(self, weights: Weights, version: int) -> None:
        """Take these weights. After it, nothing drawn or cached under older ones is used."""
        ...

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """One continuation a request, in their order, token by token from softmax(logits / temperature).

        The same request gives the same tokens, whatever else is asked for. Log-probabilities are those at
        temperature 1. With `ignore_eos` each continuation has as many tokens as its limit says.

        Raises UserError where the engine is gone.
        """
        ...

    def close(self) -> None:
        """Give back what it holds: memory, processes, files. To be called once; it cannot draw afterwards."""
        ...


class Drawing(Policy, Protocol):
    """A policy that can be an engine, as HFModel can."""

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """As `Engine.draw`."""
        ...

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """All weights by name, in the base model's own naming, adapters merged in."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take weights as another model's `weights` gives them. Raises ValueError where they are of another shape."""
        ...


@runtime_checkable
class Draws(LanguageModel, Protocol):
    """A model that continues what it is given, as samplers that go by requests need it: Split, HFModel, a table."""

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """As `Engine.draw`."""
        ...


@runtime_checkable
class DrawnElsewhere(Draws, Protocol):
    """One whose draws are another engine's. Only what is asked for by request is: `decoder` is the model's own."""

    engine: Engine


def requests(ids_P: Sequence[Sequence[int]], n: int, limit: int, seed: int) -> list[Request]:
    """n requests to each prompt, prompt by prompt. A prompt that comes twice gets other numbers the second time."""
    seen: Counter[tuple[int, ...]] = Counter()
    rows = []
    for ids in map(tuple, ids_P):
        rows += [Request(ids, limit, derive(seed, ids, seen[ids]), row) for row in range(n)]
        seen[ids] += 1
    return rows


def grouped(
    model: LanguageModel, drawn_N: Sequence[Drawn], n: int, version: int, *, ignore_eos: bool
) -> list[list[Rollout]]:
    """What was drawn, as responses with their text: `[P][n]`.

    model: that knows the text of tokens.
    version: of the weights that they were drawn with.
    ignore_eos: whether every response counts as complete.
    """
    told = model.rollouts([(drawn.tokens, drawn.logprobs) for drawn in drawn_N])
    flat = [
        replace(rollout, complete=drawn.complete or ignore_eos, version=version)
        for rollout, drawn in zip(told, drawn_N, strict=True)
    ]
    return [flat[i : i + n] for i in range(0, len(flat), n)]


class Split:
    """A Policy that is trained here and drawn from there: `generate` by the engine, all else by the trained model.

    trained: whose weights the engine is given, whenever it has older ones.
    engine: that draws. Its rollouts are stamped with the version of the weights that it has.
    weights: that the engine is given, where they are not the trained model's as it gives them.
    """

    def __init__(self, trained: Drawing, engine: Engine, weights: Weights | None = None) -> None:
        self.trained, self.engine = trained, engine
        self._weights = weights or trained.weights

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """By the engine, with the trained model's weights as they are (`Engine.draw`)."""
        if self.engine.version != self.trained.version:
            self.engine.update(self._weights, self.trained.version)
        return self.engine.draw(requests_N, temperature, ignore_eos=ignore_eos)

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
        """By the engine (`LanguageModel.generate`)."""
        ids_P = [self.trained.encode(prompt, max_tokens) for prompt in prompts]
        drawn_N = self.draw(requests(ids_P, n, max_tokens, seed), temperature, ignore_eos=ignore_eos)
        return grouped(self.trained, drawn_N, n, self.engine.version, ignore_eos=ignore_eos)

    # By the trained model

    @property
    def version(self) -> int:
        """Of the trained model."""
        return self.trained.version

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """By the trained model (`LanguageModel.encode`)."""
        return self.trained.encode(prompt, max_tokens)

    def logprobs(
        self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """By the trained model (`LanguageModel.logprobs`)."""
        return self.trained.logprobs(prompts, rollouts, temperature=temperature)

    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> Decoder:
        """Of the trained model (`LanguageModel.decoder`)."""
        return self.trained.decoder(prompts, n=n, max_tokens=max_tokens)

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """Of the trained model (`LanguageModel.capacity`)."""
        return self.trained.capacity(prompts, tokens)

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """By the trained model (`LanguageModel.rollouts`)."""
        return self.trained.rollouts(responses)

    def fingerprint(self) -> str:
        """Of the trained model (`LanguageModel.fingerprint`)."""
        return self.trained.fingerprint()

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Of the trained model (`Policy.trainable`)."""
        return self.trained.trainable()

    def updated(self) -> None:
        """Of the trained model (`Policy.updated`); the engine takes the new weights when it next draws."""
        self.trained.updated()

    def save(self, folder: Path) -> None:
        """Of the trained model (`Policy.save`)."""
        self.trained.save(folder)

    def restore(self, folder: Path, version: int) -> None:
        """Of the trained model (`Policy.restore`); the engine takes the weights when it next draws."""
        self.trained.restore(folder, version)
        self.engine.version = -1  # weights of that version may have been others

    @property
    def nbytes(self) -> int:
        """Of the trained model (`Policy.nbytes`)."""
        return self.trained.nbytes


class Replica:
    """The plainest engine: a copy of the trained model, drawing as that does.

    copy: a model of the same shape, which nobody else changes.
    """

    def __init__(self, copy: Drawing) -> None:
        self._copy, self.version = copy, -1

    def update(self, weights: Weights, version: int) -> None:
        """Copy the weights (`Engine.update`)."""
        self._copy.load(weights())
        self.version = version

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """By the copy (`Engine.draw`)."""
        return self._copy.draw(requests_N, temperature, ignore_eos=ignore_eos)

    def close(self) -> None:
        """Nothing is held that would not go by itself."""
