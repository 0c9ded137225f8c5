"""The nouns of tiltlab: small frozen values that travel between its parts.

Left out on purpose: anything that computes. Whoever changes a value makes a new one.
Shape suffixes used everywhere: _P prompts, _G responses to one prompt, _T tokens, _N rows (P x G flattened).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]
"""One chat turn: {"role": ..., "content": ...}."""

Prompt = str | tuple[Message, ...]
"""Plain text, fed to the model as it stands, or chat messages, which need a chat template."""

Reason = Literal["correct", "wrong", "no_answer", "timeout", "error"]
"""Why a grade is what it is. "timeout" and "error" mean that nobody knows: such a grade counts for nothing."""

UNKNOWN: frozenset[Reason] = frozenset({"timeout", "error"})


Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to solve.

    id: unique within its task.
    question: as text.
    answer: the gold answer; empty where a task needs none.
    columns: whatever else its row of data held.
    messages: the chat to be sent as it stands, where the row gave one; `question` then holds what is said in it.
    """

    id: str
    question: str
    answer: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response, exactly as it was drawn.

    tokens: every token drawn, the one that ended the response (EOS) included.
    text: what a reader sees: up to the first EOS, special tokens left out.
    complete: whether it came to an end of its own. A response truncated by the token limit is a prefix, not a response:
        its log-probability says nothing about the distribution of responses.
    logprobs: log-probability of each token when it was drawn, under the model at temperature 1 (whatever the
        temperature of the draw). Only for watching: training scores with its own forward pass.
    version: how many updates the policy that drew it had seen.
    """

    tokens: tuple[int, ...]
    text: str
    complete: bool
    logprobs: tuple[float, ...]
    version: int = 0


@dataclass(frozen=True, slots=True)
class Grade:
    """What a task thinks of one response.

    reward: NaN where there is none: the task could not grade it, or a reward function of the user's own returned None,
        which leaves `reason` as it is.
    answer: what was read; None where nothing was.
    reason: why the grade is what it is.
    """

    reward: float
    answer: str | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Record:
    """One graded response of an evaluation; one line of records.jsonl.

    task: its name.
    problem: its id.
    sample: number of the response among the problem's, from 0.
    text: of the response, as a reader sees it.
    answer, reward, reason: the grade (see `Grade`).
    tokens: of the response, its end included; 0 where nobody knows.
    complete: whether it came to an end of its own.
    logp: sum of its tokens' log-probabilities under the model that drew it, at temperature 1, in nats; NaN where nobody
        knows.
    ref_logp: likewise under the reference.
    """

    task: str
    problem: str
    sample: int
    text: str
    answer: str | None
    reward: float
    reason: Reason
    tokens: int
    complete: bool
    logp: float
    ref_logp: float
