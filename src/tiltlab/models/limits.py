"""What a model's config says of its sizes, and whether its tokenizer goes with them."""

from typing import Any

from tiltlab.errors import UserError, shown

_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")


def longest_context(settings: Any) -> int | None:
    """Tokens of the longest text that the model can read; None where its config names no limit."""
    return next((limit for name in _LIMITS if (limit := getattr(settings, name, None))), None)


def require_sizes(name: str, settings: Any) -> None:
    """Raises UserError for sizes that no model can have: transformers takes -1 layers for none, and only warns.

    name: of the model, as people call it.
    settings: its config.
    """
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", *_LIMITS):
        size = getattr(settings, key, None)
        wanted = key == "vocab_size" or isinstance(size, int | float | str)  # others are not every family's, or lists
        if wanted and not (type(size) is int and size > 0):
            raise UserError(f"model {name}: {key} in its config.json must be a number from 1, got {shown(size)}")


def require_known_tokens(name: str, tokenizer: Any, eos: set[Any], settings: Any) -> None:
    """Raises UserError for a tokenizer with tokens that the model does not know.

    name: of the model, as people call it.
    eos: ids of the tokens that end a response, as the model's files have them.
    settings: its config.

    A model may know more tokens than its tokenizer. Tokens that were added to the tokenizer and lie beyond the model
    are met in prompts or never, which `Codec.encode` tells; some models have such for images.
    """
    most = settings.vocab_size
    pads = {tokenizer.pad_token_id, getattr(settings, "pad_token_id", None)} - {None, -1}  # -1: llama's "none"
    for role, ids in (("EOS", eos), ("pad", pads)):
        beyond = [i for i in ids if type(i) is not int or not 0 <= i < most]
        if beyond:
            raise UserError(
                f"model {name} knows {most} tokens, from 0, and its {role} token is {shown(beyond[0])}; mend its "
                "tokenizer, or the ids in its config.json and generation_config.json"
            )
    added = tokenizer.get_added_vocab()
    own = {token: i for token, i in tokenizer.get_vocab().items() if i >= most and token not in added}
    if own:
        token = min(own, key=own.__getitem__)
        raise UserError(
            f"model {name} knows {most} tokens, from 0, and its tokenizer has {len(own)} beyond them, such as "
            f"{shown(token)} ({own[token]}); it must be the tokenizer that the model was made with"
        )
