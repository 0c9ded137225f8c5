"""Transformers small enough to enumerate, and a tokenizer of one token a letter."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from tiltlab.models.codec import Codec
from tiltlab.models.hf import HFModel


def tokenizer(letters: str = "abcdefgh", eos: str = ".") -> PreTrainedTokenizerFast:
    raw = Tokenizer(WordLevel({letter: i for i, letter in enumerate(eos + letters)}, unk_token=eos))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, unk_token=eos)


def llama(vocabulary: int = 9, seed: int = 0, **options: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,  # far from uniform
        **({"eos_token_id": 0, "bos_token_id": None, "pad_token_id": None} | options),
    )
    return LlamaForCausalLM(config)


def gpt2(vocabulary: int = 9) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.4}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, eos_token_id=0, bos_token_id=0, **sizes))


def model(module: Any = None, letters: str = "abcdefgh", stop: str | None = None, **options: Any) -> HFModel:
    module = module if module is not None else llama(len(letters) + 1)
    codec = Codec("tiny", tokenizer(letters), (0,), 64, module.config.vocab_size, stop)
    return HFModel(module, codec, **options)


def mistral(vocabulary: int = 9) -> Any:
    """Every layer sees only the last five tokens."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        sliding_window=5,
        initializer_range=0.4,
        eos_token_id=0,
    )
    return MistralForCausalLM(config)


def gemma3(vocabulary: int = 9) -> Any:
    """Layers with and without a window in turn, and norms of its own."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        sliding_window=5,
        sliding_window_pattern=2,
        initializer_range=0.4,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Gemma3ForCausalLM(config)
