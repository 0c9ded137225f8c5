"""Responses token by token: how likely the base found each token, and how many it liked better.

Of the first sample of a few problems only: enough to look at, and to tell at which share of positions a model leaves
the base's top choice. Left out on purpose: all other samples, whose sums are in the records.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch

from tiltlab.models.base import LanguageModel
from tiltlab.types import Problem, Prompt, Rollout

SPELLED = 8
"""Problems whose responses are kept with the text of each token: spelling takes time in the square of the length."""

COUNTED = 64
"""Problems whose responses are kept with figures."""

AT_ONCE = 32
"""Responses that are read side by side."""


@dataclass(frozen=True)
class TokenLine:
    """One response, token by token.

    problem: its id.
    logp: of each token under the model that drew it, at temperature 1, in nats.
    ref_logp: likewise under the base.
    ranks: of each token, how many tokens the base found likelier there.
    pieces: the text that each token added, which joined is the response's; None where it is not kept. What ends the
        response, or is only half a character, adds none.
    """

    problem: str
    logp: tuple[float, ...]
    ref_logp: tuple[float, ...]
    ranks: tuple[int, ...]
    pieces: tuple[str, ...] | None


def token_lines(
    base: LanguageModel,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    first_P: Sequence[Rollout],
    told: int = 0,
) -> list[dict[str, Any]]:
    """Lines of tokens.jsonl (the fields of TokenLine) for the first response to each problem, as far as there is room.

    base: whose log-probabilities and ranks stand in them.
    problems, prompts, first_P: as many of each.
    told: how many lines there are already, of earlier problems.
    """
    lines: list[TokenLine] = []
    for start in range(0, len(problems), AT_ONCE):
        room = max(0, COUNTED - told - len(lines))
        some = [p for p in range(start, min(start + AT_ONCE, len(problems))) if first_P[p].tokens][:room]
        scored = told_by(base, [prompts[p] for p in some], [first_P[p] for p in some]) if some else []
        for p, (ref_logp, ranks) in zip(some, scored, strict=True):
            spelled = spell(base, first_P[p]) if told + len(lines) < SPELLED else None
            lines.append(TokenLine(problems[p].id, first_P[p].logprobs, ref_logp, ranks, spelled))
    return [asdict(line) for line in lines]


@torch.no_grad()
def told_by(
    model: LanguageModel, prompts_P: Sequence[Prompt], rollouts_P: Sequence[Rollout]
) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
    """What a model says of each token of one response to each prompt: (log-probabilities, ranks), read step by step.

    prompts_P, rollouts_P: as many of each; a response has at least one token.

    Log-probabilities are in nats, at temperature 1; rank 0 is the top choice.
    """
    longest = max(len(rollout.tokens) for rollout in rollouts_P)
    decoder = model.decoder(prompts_P, n=1, max_tokens=longest)
    logps: list[list[float]] = [[] for _ in rollouts_P]
    ranks: list[list[int]] = [[] for _ in rollouts_P]
    going = list(range(len(rollouts_P)))
    for step in range(longest):
        stay = [i for i, row in enumerate(going) if step < len(rollouts_P[row].tokens)]
        if len(stay) < len(going):
            decoder.select(torch.tensor(stay, device=decoder.length_N.device))
            going = [going[i] for i in stay]
        logits_NV = decoder.next_logits()
        token_N = torch.tensor([rollouts_P[row].tokens[step] for row in going], device=logits_NV.device)
        own_N1 = logits_NV.gather(-1, token_N[:, None])
        rank_N = (logits_NV > own_N1).sum(-1)
        logp_N = own_N1[:, 0] - logits_NV.logsumexp(-1)
        for row, logp, rank in zip(going, logp_N.tolist(), rank_N.tolist(), strict=True):
            logps[row].append(logp)
            ranks[row].append(rank)
        decoder.append(token_N)
    return [(tuple(logp), tuple(rank)) for logp, rank in zip(logps, ranks, strict=True)]


def spell(model: LanguageModel, rollout: Rollout) -> tuple[str, ...]:
    """What each token of a response adds to its text. Half a character waits for its other half.

    model: the one whose tokens they are.
    """
    prefixes = [(rollout.tokens[:i], rollout.logprobs[:i]) for i in range(1, len(rollout.tokens))]
    texts = [one.text for one in model.rollouts(prefixes)] if prefixes else []
    shown = [0]
    for text in texts:
        whole = not text.endswith("\N{REPLACEMENT CHARACTER}") and rollout.text.startswith(text)
        shown.append(len(text) if whole else shown[-1])
    shown.append(len(rollout.text))
    return tuple(rollout.text[start:end] for start, end in pairwise(shown))
