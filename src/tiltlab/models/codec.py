"""Between text and tokens: how prompts are written for a model, and where a response ends.

Left out on purpose: weights. A codec loads without them, so that a study can be refused before anything is spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tiltlab.errors import UserError
from tiltlab.types import Prompt


@dataclass(frozen=True)
class Codec:
    """A tokenizer with the model's limits.

    eos_ids: tokens that the model ends a turn with. stop: a text that also ends a response ("\\n" for few-shot prompts
    of a base model); the token that brings it is the response's last and counts in its log-probability, as EOS does.
    context: how many tokens prompt and response may have together. vocabulary: width of the model's logits.
    """

    name: str
    tokenizer: Any
    eos_ids: tuple[int, ...]
    context: int
    vocabulary: int
    stop: str | None = None

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """Token ids of a prompt, BOS and chat template included.

        Raises UserError for chat messages without a chat template, an empty prompt, and a prompt that leaves no room
        for `max_tokens` within the context.
        """
        if isinstance(prompt, str):
            ids = list(self.tokenizer(prompt)["input_ids"])
        elif not self.tokenizer.chat_template:
            raise UserError(
                f"model {self.name} has no chat template, so it cannot take chat messages; "
                "set `prompt: plain` for this task, or take an instruct model"
            )
        else:
            messages = [dict(message) for message in prompt]
            ids = list(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        if not ids:
            raise UserError(
                f"model {self.name} turns the prompt {prompt!r} into no token at all; the prompt must not be empty"
            )
        if len(ids) + max_tokens > self.context:
            raise UserError(
                f"a prompt of {len(ids)} tokens and max_tokens {max_tokens} do not fit the context of {self.name} "
                f"({self.context} tokens); the prompt begins {str(prompt)[:60]!r}"
            )
        return ids

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end a response: EOS, and every token whose text holds `stop`.

        Raises UserError for a stop text that no token holds.
        """
        if self.stop is None:
            return self.eos_ids
        pieces = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        stops = {i for i, piece in enumerate(pieces) if self.stop in piece}
        if not stops:
            raise UserError(
                f"no token of model {self.name} holds the stop text {self.stop!r}, so it would never end a response; "
                "choose one that a single token can bring"
            )
        return tuple(sorted({*self.eos_ids, *stops}))

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text a reader sees of each response: up to its first end, without special tokens."""
        ends, eos = frozenset(self.end_ids), frozenset(self.eos_ids)
        shown = []
        for row in rows:
            end = next((i for i, token in enumerate(row) if token in ends), len(row))
            keep = end + 1 if end < len(row) and row[end] not in eos else end  # a stop text is cut below
            shown.append(list(row[:keep]))
        texts = self.tokenizer.batch_decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.split(self.stop, 1)[0] for text in texts] if self.stop else list(texts)
