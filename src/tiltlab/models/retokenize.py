"""From the text of a response back to the tokens that it was drawn as, as far as a text can tell.

A model may draw a text in other tokens than its tokenizer would write it in, and nothing in the text says so. What can
be told is told: whether the tokens give back the text, and whether they are as many as were drawn.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tiltlab.models.chat import turn_ends
from tiltlab.models.codec import Codec
from tiltlab.types import Prompt

Fault = Literal["text", "length", "empty"]
"""text: the tokens give another text. length: they are not as many as were drawn. empty: there is nothing to score."""


class Retokenized(NamedTuple):
    """A response in tokens.

    ids: the one that ends it included, where it is complete.
    fault: why they cannot be those that were drawn; None where nothing speaks against it.
    """

    ids: tuple[int, ...]
    fault: Fault | None


def retokenized(codec: Codec, text: str, *, end: int, complete: bool, tokens: int = 0) -> Retokenized:
    """A response that is known by its text.

    codec: of the model that is to score it.
    end: the token that ends a complete response (`ending`); a stop text brings its own.
    complete: whether it came to an end of its own.
    tokens: how many were drawn, its end included; 0 where nobody knows.
    """
    stopped = complete and codec.stop is not None
    ids = list(codec.tokenizer(text + (codec.stop or "") * stopped, add_special_tokens=False)["input_ids"])
    if complete and not stopped:
        ids.append(end)
    if not ids or max(ids) >= codec.vocabulary:
        return Retokenized((), "text" if ids else "empty")
    fault: Fault | None = None
    if codec.decode([ids]) != [text]:
        fault = "text"
    elif tokens and len(ids) != tokens:
        fault = "length"
    return Retokenized(tuple(ids), fault)


def ending(codec: Codec, prompts: Sequence[Prompt]) -> int:
    """The token that a complete response to such prompts ends with: what the chat template ends a turn with, where
    that ends a response; else the tokenizer's EOS, or the model's first.

    prompts: of the task at hand.
    """
    chat = next((prompt for prompt in prompts if not isinstance(prompt, str)), None)
    own = turn_ends(codec.tokenizer, chat, codec.date) if chat is not None and codec.tokenizer.chat_template else []
    wanted = [*own, codec.tokenizer.eos_token_id]
    return next((token for token in wanted if token in codec.eos_ids), codec.eos_ids[0])
