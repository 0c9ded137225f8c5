"""Between text and tokens: how prompts are written for a model, and where a response ends.

Left out on purpose: weights. A codec loads without them, so that a study can be refused before any work is done.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiltlab.errors import UserError, said, shown
from tiltlab.models.chat import asks_date, chat_ids, today, turn_ends
from tiltlab.types import Message, Prompt


@dataclass(frozen=True)
class Codec:
    """A tokenizer with the model's limits.

    name: the model's, for errors and notes.
    tokenizer: of transformers.
    eos_ids: tokens that the model ends a turn with.
    context: how many tokens prompt and response may have together.
    vocabulary: width of the model's logits.
    stop: a text that also ends a response ("\\n" for few-shot prompts of a base model); the token that brings it is the
        response's last and counts in its log-probability, as EOS does.
    date: what a chat template that writes the date is told.
    """

    name: str
    tokenizer: Any
    eos_ids: tuple[int, ...]
    context: int
    vocabulary: int
    stop: str | None = None
    date: dt.date = field(default_factory=today)

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """Token ids of a prompt, BOS and chat template included, without an EOS after it.

        max_tokens: how many tokens are to follow it.

        Raises UserError for chat messages that the model has no chat template for or whose template refuses them, an
        empty prompt, a token that the model does not know, and a prompt that leaves no room for `max_tokens` within
        the context.
        """
        ids = self._plain_ids(prompt) if isinstance(prompt, str) else self._chat_ids(prompt)
        if not ids:
            raise UserError(
                f"model {self.name} turns the prompt {shown(prompt)} into no token at all; the prompt must not be empty"
            )
        if max(ids) >= self.vocabulary:
            raise UserError(
                f"a prompt holds the token {shown(self.tokenizer.decode([max(ids)]))} ({max(ids)}), and model "
                f"{self.name} knows {self.vocabulary} tokens, from 0; its tokenizer must be that of the model"
            )
        if len(ids) + max_tokens > self.context:
            raise UserError(
                f"a prompt of {len(ids)} tokens and max_tokens {max_tokens} do not fit the context of {self.name} "
                f"({self.context} tokens); the prompt begins {str(prompt)[:60]!r}"
            )
        return ids

    def notes(self, prompts: Iterable[Prompt]) -> list[str]:
        """What there is to say of how such prompts are written, one line each. Raises what `encode` raises."""
        messages = next((prompt for prompt in prompts if not isinstance(prompt, str)), None)
        if messages is None:
            return []
        self.encode(messages)
        notes = []
        if asks_date(self.tokenizer):
            notes.append(f"the chat template writes the date: it is {self.date} in all prompts (model.date sets it)")
        ends = turn_ends(self.tokenizer, messages, self.date)
        if ends and not {*ends} & {*self.end_ids}:
            token = self.tokenizer.decode(ends[:1])
            notes.append(
                f"the chat template ends a turn with {token!r}, which does not end a response of this model; "
                f"set `model.stop: {token!r}` unless that is meant"
            )
        return [f"model {self.name}: {note}" for note in notes]

    def _plain_ids(self, prompt: str) -> list[int]:
        """With the BOS that a tokenizer puts before a text, and without the EOS that some put after it: what follows
        an EOS is another text."""
        ids = list(self.tokenizer(prompt)["input_ids"])
        if not _ends(ids, self.eos_ids):
            return ids
        bare = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        appended = _ends(ids, self.eos_ids) - _ends(bare, self.eos_ids)
        return ids[: max(1, len(ids) - appended)]

    def _chat_ids(self, messages: Sequence[Message]) -> list[int]:
        if not self.tokenizer.chat_template:
            raise UserError(
                f"model {self.name} has no chat template, so it cannot take chat messages; "
                "set `prompt: plain` for this task, or take an instruct model"
            )
        try:
            return chat_ids(self.tokenizer, messages, self.date)
        except Exception as error:  # a template is a program, and may fail as any
            raise UserError(
                f"the chat template of model {self.name} cannot write the prompt "
                f"({said(error)}); set `prompt: plain` for this task, or mend the template"
            ) from error

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end a response: EOS, and every token whose text holds `stop`.

        Raises UserError for a stop text that no token holds.
        """
        if self.stop is None:
            return self.eos_ids
        pieces = self.tokenizer.batch_decode([[i] for i in range(min(len(self.tokenizer), self.vocabulary))])
        stops = {i for i, piece in enumerate(pieces) if self.stop in piece}
        if not stops:
            raise UserError(
                f"no token of model {self.name} holds the stop text {shown(self.stop)}, so it would never end a "
                "response; choose one that a single token can bring"
            )
        return tuple(sorted({*self.eos_ids, *stops}))

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text a reader sees of each response: up to its first end, without special tokens.

        rows: token ids of each response.
        """
        ends, eos = frozenset(self.end_ids), frozenset(self.eos_ids)
        shown = []
        for row in rows:
            end = next((i for i, token in enumerate(row) if token in ends), len(row))
            keep = end + 1 if end < len(row) and row[end] not in eos else end  # a stop text is cut below
            shown.append(list(row[:keep]))
        if not shown:
            return []  # transformers takes no rows for one empty row
        texts = self.tokenizer.batch_decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.split(self.stop, 1)[0] for text in texts] if self.stop else list(texts)


def _ends(ids: Sequence[int], eos: Sequence[int]) -> int:
    """How many EOS stand at the end."""
    return next((i for i, token in enumerate(reversed(ids)) if token not in eos), len(ids))
