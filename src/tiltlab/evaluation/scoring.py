"""Log-probabilities of responses that exist, under a model that need not have drawn them.

Left out on purpose: grades, and drawing. A response is scored as it stands; one whose tokens cannot be told from its
text has no log-probability, which is better than that of another response.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import nan

import torch

from tiltlab.errors import UserError
from tiltlab.models.codec import Codec
from tiltlab.models.hf import HFModel
from tiltlab.models.retokenize import Fault, Retokenized, ending, retokenized
from tiltlab.types import Prompt, Rollout

LOT = 8192
"""Tokens that are scored between two reports of progress, about."""


@dataclass(frozen=True)
class Response:
    """A response to be scored.

    prompt: that it answers.
    text: as a reader sees it.
    complete: whether it came to an end of its own.
    tokens: how many, its end included; 0 where nobody knows.
    ids: its tokens, where they are known; those that say something else than the text are another tokenizer's, and the
        text counts.
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
    for lot in _lots(responses_N, partial(_tokens, model, end=end)):
        yield _scored(model, lot, end)


Group = tuple[Prompt, list[Retokenized]]
"""A prompt and its responses."""


def _lots(responses_N: Sequence[Response], tokens: Callable[[Response], Retokenized]) -> Iterator[list[Group]]:
    """Groups with as many responses each, in lots of at most LOT tokens (one group at least)."""
    lot: list[Group] = []
    size = held = 0
    for prompt, group in groupby(responses_N, key=lambda response: response.prompt):
        told = [tokens(response) for response in group]
        longest = max(len(one.ids) for one in told) * len(told)
        if lot and (len(told) != size or held + longest > LOT):
            yield lot
            lot, held = [], 0
        lot.append((prompt, told))
        size, held = len(told), held + longest
    if lot:
        yield lot


@torch.no_grad()
def _scored(model: HFModel, lot: Sequence[Group], end: int) -> list[Scores]:
    rollouts = [[Rollout(one.ids or (end,), "", True, ()) for one in told] for _, told in lot]  # none may be empty
    token_PGT = model.logprobs([prompt for prompt, _ in lot], rollouts).token_PGT.tolist()
    return [
        Scores(one.ids, tuple(token_PGT[p][g][: len(one.ids)]), one.fault)
        for p, (_, told) in enumerate(lot)
        for g, one in enumerate(told)
    ]


def _tokens(model: HFModel, response: Response, end: int) -> Retokenized:
    codec = model.codec
    if response.ids and not all(0 <= token < codec.vocabulary for token in response.ids):
        raise UserError(
            f"a response holds the token {max(response.ids, key=abs)}, and model {codec.name} knows "
            f"{codec.vocabulary}, from 0; score it with a model of the same vocabulary"
        )
    if response.ids and _say(codec, response.ids, response.text):
        return Retokenized(response.ids, None)
    tokens = 0 if response.ids else response.tokens  # another tokenizer's count says nothing of this one's
    return retokenized(codec, response.text, end=end, complete=response.complete, tokens=tokens)


def _say(codec: Codec, ids: tuple[int, ...], text: str) -> bool:
    """Whether tokens hold a text, spaces aside. They may say more: thoughts and calls that a program cut out of it."""
    wanted = "".join(text.split())
    if wanted in "".join(codec.decode([ids])[0].split()):
        return True
    return wanted in "".join(codec.tokenizer.decode(list(ids), skip_special_tokens=False).split())
