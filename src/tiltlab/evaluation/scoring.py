"""Log-probabilities of responses that exist, under a model that need not have drawn them.

Left out on purpose: grades, and drawing. A response is scored as it stands; one whose tokens cannot be told from its
text has no log-probability, which is better than that of another response.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import nan

import torch

from tiltlab.errors import UserError
from tiltlab.models.hf import HFModel
from tiltlab.models.retokenize import Fault, ending, retokenized
from tiltlab.types import Prompt, Rollout

LOT = 16
"""Prompts that are scored side by side, at most."""


@dataclass(frozen=True)
class Response:
    """A response to be scored.

    prompt: that it answers.
    text: as a reader sees it.
    complete: whether it came to an end of its own.
    tokens: how many, its end included; 0 where nobody knows.
    ids: its tokens, where they are known: the text is then not looked at.
    """

    prompt: Prompt
    text: str
    complete: bool
    tokens: int = 0
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scores:
    """What a model says of a response.

    ids: the tokens that were scored; none where there is nothing to score.
    logprobs: of each, at temperature 1, in nats.
    fault: why they are not those that were drawn (see `Retokenized`); None where nothing speaks against it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    fault: Fault | None

    @property
    def logp(self) -> float:
        """The sum over tokens, nats; NaN where the tokens are not those that were drawn."""
        return nan if self.fault else sum(self.logprobs)


def scores(model: HFModel, responses_N: Sequence[Response]) -> Iterator[list[Scores]]:
    """Scores of responses, in order, a lot at a time.

    responses_N: those to one prompt beside each other, which is then read once.

    Raises UserError for a prompt that the model has no room for, and for token ids that it does not know.
    """
    end = ending(model.codec, [response.prompt for response in responses_N[:1]])
    for lot in _lots(responses_N):
        yield _scored(model, lot, end)


def _lots(responses_N: Sequence[Response]) -> Iterator[list[list[Response]]]:
    """Groups of responses to one prompt, as many to each, LOT at a time."""
    groups = [list(group) for _, group in groupby(responses_N, key=lambda response: response.prompt)]
    for _, alike in groupby(groups, key=len):
        some = list(alike)
        yield from (some[start : start + LOT] for start in range(0, len(some), LOT))


@torch.no_grad()
def _scored(model: HFModel, groups: Sequence[Sequence[Response]], end: int) -> list[Scores]:
    told = [[_tokens(model, response, end) for response in group] for group in groups]
    rollouts = [[Rollout(ids or (end,), "", True, ()) for ids, _ in group] for group in told]  # none may be empty
    token_PGT = model.logprobs([group[0].prompt for group in groups], rollouts).token_PGT.tolist()
    return [
        Scores(ids, tuple(token_PGT[p][g][: len(ids)]), fault)
        for p, group in enumerate(told)
        for g, (ids, fault) in enumerate(group)
    ]


def _tokens(model: HFModel, response: Response, end: int) -> tuple[tuple[int, ...], Fault | None]:
    codec = model.codec
    if not response.ids:
        told = retokenized(codec, response.text, end=end, complete=response.complete, tokens=response.tokens)
        return told.ids, told.fault
    if not all(0 <= token < codec.vocabulary for token in response.ids):
        raise UserError(
            f"a response holds the token {max(response.ids, key=abs)}, and model {codec.name} knows "
            f"{codec.vocabulary}, from 0; score it with a model of the same vocabulary"
        )
    return response.ids, None
