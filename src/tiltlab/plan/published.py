"""Counted of well-known models as their publishers' config.json has them, to plan with where no hub can be reached.

Only what memory and time depend on; such a model is never loaded from here.
"""

from typing import Any

from tiltlab.errors import UserError, brief
from tiltlab.models.loading import ModelConfig, load_settings
from tiltlab.storage.files import read_json


def _llama(layers: int, hidden: int, inner: int, heads: int, head: int) -> dict[str, Any]:
    sizes = _sizes(layers, hidden, inner, heads, 8, 128256, 131072)
    return {"model_type": "llama", "head_dim": head, **sizes}


def _qwen2(layers: int, hidden: int, inner: int, heads: int, pairs: int) -> dict[str, Any]:
    return {"model_type": "qwen2", **_sizes(layers, hidden, inner, heads, pairs, 151936, 32768)}


def _sizes(
    layers: int, hidden: int, inner: int, heads: int, pairs: int, vocabulary: int, context: int
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }


_QWEN3_4B = {"model_type": "qwen3", "head_dim": 128, **_sizes(36, 2560, 9728, 32, 8, 151936, 262144)}

PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B-Instruct": _llama(16, 2048, 8192, 32, 64),
    "meta-llama/Llama-3.2-3B-Instruct": _llama(28, 3072, 8192, 24, 128),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(24, 896, 4864, 14, 2),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(28, 1536, 8960, 12, 2),
    "Qwen/Qwen2.5-3B-Instruct": _qwen2(36, 2048, 11008, 16, 2),
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3_4B,
}
"""By hub id."""

AS_PUBLISHED = "shape as published; not read from the model"
READ = "shape read from the model's config"


def settings_of(model: ModelConfig, config: str | None = None) -> tuple[Any, str]:
    """A model's config, as transformers has it, and where it is from.

    model: as a recipe names it. One of those above that is not on this machine is taken as published: plans ask nothing
        of a network where they need not.
    config: a config.json, or its folder, to be read in its place.

    Raises UserError where there is no config that can be used.
    """
    if config is not None:
        return _from_file(config), f"shape read from {config}"
    if model.path not in PUBLISHED:
        return load_settings(model), READ
    try:
        return load_settings(model, local_files_only=True), READ
    except UserError:
        return _made(model.path, PUBLISHED[model.path]), AS_PUBLISHED


def _from_file(config: str) -> Any:
    from pathlib import Path

    path = Path(config)
    given = read_json(path / "config.json" if path.is_dir() else path)
    if not isinstance(given, dict) or not isinstance(given.get("model_type"), str):
        raise UserError(f"--config {config} is no model's config.json: it names no model_type")
    return _made(config, given)


def _made(name: str, given: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    sizes = {key: value for key, value in given.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(given["model_type"], **sizes)
    except Exception as error:  # a config may be any nonsense
        raise UserError(f"model {name}: its config cannot be used ({brief(error, 200)})") from error
