"""A model's chat template: a program in jinja that comes with the tokenizer and writes messages as one text.

Most are harmless. Some ask what day it is, some raise where messages are not as they like, and some end a turn with a
token that the model's settings do not count as EOS.
"""

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import Any

from tiltlab.types import Message

CLOCK = "strftime_now"
"""What transformers calls the clock that templates may ask."""

_ANSWER = "tiltlab"
"""A response that no template writes of its own accord."""


@cache
def today() -> dt.date:
    """The day this process first asked: past midnight, prompts stay as they were."""
    return dt.date.today()


def chat_ids(tokenizer: Any, messages: Sequence[Message], date: dt.date) -> list[int]:
    """Token ids of messages as the template writes them, up to where the response begins.

    tokenizer: of transformers, with a chat template.
    date: what a template that asks for it is told.

    Raises whatever the template raises.
    """
    _stop_clock(tokenizer, date)
    said = [dict(message) for message in messages]
    return list(tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False))


def asks_date(tokenizer: Any) -> bool:
    """Whether the template writes the date into prompts."""
    return CLOCK in tokenizer.get_chat_template()


def turn_ends(tokenizer: Any, messages: Sequence[Message], date: dt.date) -> list[int]:
    """Ids of the special tokens that the template writes after a response to such messages; none where it fails.

    messages: a prompt of the task at hand, as templates may write different chats differently.
    """
    _stop_clock(tokenizer, date)
    turns = [*map(dict, messages), {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # as `chat_ids`; here nothing depends on it
        return []
    _, answer, after = text.rpartition(_ANSWER)
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} - unknown
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if answer else []
    return [i for i in ids if i in special]


def _stop_clock(tokenizer: Any, date: dt.date) -> None:
    """transformers takes no clock from a caller, but keeps one compiled template for each text of one."""
    if not asks_date(tokenizer):
        return
    from transformers.utils import chat_template_utils

    compiled = chat_template_utils._compile_jinja_template(tokenizer.get_chat_template())
    compiled.globals[CLOCK] = date.strftime
