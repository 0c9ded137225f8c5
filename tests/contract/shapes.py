"""Small random models of the shapes that the paper trains, with engines, and how far the two are apart."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tiltlab.config.engine import EngineConfig
from tiltlab.engines.make import drawn_by
from tiltlab.models.engine import Split
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec
from tiltlab.system import shared_folder
from tiltlab.tasks.sums import Sums

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make contract")

TASK = Sums("lazy-sum")
PROMPTS = [TASK.render(problem) for problem in TASK.problems("train")[:8]]

A_TOKEN = 1e-5
"""Nats: the mean difference of one token's log-probability that counts as none, for float32 on both sides."""


def module(kind: str = "llama", *, tied: bool = False) -> Any:
    """Two layers, grouped heads; Qwen2 has biases, Qwen3 norms of queries and keys."""
    torch.manual_seed(0)
    codec = load_codec(ModelConfig())
    config = AutoConfig.for_model(
        kind,
        vocab_size=codec.vocabulary,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        initializer_range=0.15,  # far from uniform
        tie_word_embeddings=tied,
        eos_token_id=codec.eos_ids[0],
        bos_token_id=None,
        pad_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def policy(kind: str = "llama", *, tied: bool = False) -> HFModel:
    return HFModel(module(kind, tied=tied), load_codec(ModelConfig()))


@contextmanager
def drawn_by_vllm(trained: HFModel) -> Iterator[Split]:
    with drawn_by(EngineConfig("vllm"), trained) as both:
        assert isinstance(both, Split)
        yield both


def mismatch(both: Split, *, temperature: float = 1.0, seed: int = 0) -> float:
    """Mean difference, in nats a token, between what the engine says of its draws and what the trained model says."""
    rollouts = both.generate(PROMPTS, n=2, max_tokens=24, temperature=temperature, seed=seed)
    return difference(both, rollouts)


def difference(both: Split, rollouts: Any) -> float:
    with torch.no_grad():
        told = both.logprobs(PROMPTS, rollouts)
    said = [torch.tensor(rollout.logprobs) for group in rollouts for rollout in group]
    trained = [row[: len(one)] for row, one in zip(told.token_PGT.flatten(0, 1), said, strict=True)]
    return float((torch.cat(said) - torch.cat(trained)).abs().mean())


def groups(trained: HFModel) -> list[str]:
    """The kinds of weights, without the number of the layer."""
    return list(dict.fromkeys(kind_of(name) for name in trained.trainable()))


def kind_of(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def shared_folders() -> set[Path]:
    return set(shared_folder._parent().glob(f"{shared_folder.PREFIX}*"))
