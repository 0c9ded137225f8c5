"""Models by name: the embedded one, a hub id, a local folder, or a GGUF file.

Weights are read from safetensors (or GGUF) only, never unpickled, and no code that comes with a model runs unless
`trust_remote_code` says so.
"""

import copy
import datetime as dt
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from safetensors import SafetensorError

from tiltlab.errors import UserError, brief, said, shown
from tiltlab.models.chat import today
from tiltlab.models.codec import Codec
from tiltlab.models.limits import longest_context, require_known_tokens, require_sizes
from tiltlab.models.server import is_served
from tiltlab.system.world import ALONE, World

if TYPE_CHECKING:
    from tiltlab.models.hf import HFModel

EMBEDDED = "embedded"


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on linear layers (LoRA: Hu et al. 2021, arXiv 2106.09685).

    rank: of the product of two matrices that is added to a layer's weights; at most the model's hidden size.
    alpha: that product is scaled by alpha / rank; above 0.
    targets: names of the layers that get one; "all-linear" is every linear layer but the head, as in peft.

    Raises ValueError for a rank below 1 and for an alpha that is not a number above 0.
    """

    rank: int = 16
    alpha: float = 32
    targets: str | tuple[str, ...] = "all-linear"
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be 1 or more, got {self.rank}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be above 0, got {self.alpha}")


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how to run it.

    path: "embedded", a hub id ("org/name"), a local folder, a .gguf file (its weights are expanded on loading), or to
        draw from, a server's address ("server:http://127.0.0.1:8000/v1#NAME").
    revision: branch, tag or commit of a hub id; "main" where left out.
    dtype: of the weights; auto is float32 on CPU and bfloat16 on GPU. Log-probabilities are float32 either way.
    device: as torch names it; auto is a GPU where there is one, else the CPU.
    stop: a text that ends a response as EOS does, for prompts that a model does not answer with EOS (few-shot).
    lora: train adapters instead of all weights; the reference is then the same model with them switched off.
    checkpointing: recompute activations in the backward pass, to save memory; auto does where those of a study's group
        would not fit a GPU, and nowhere else.
    batch_tokens: tokens that one forward without gradients may hold; auto is as many as a GPU has free memory for, and
        32768 on CPU.
    decoding: how responses are drawn: plain, many rows side by side; or slots, in buffers that stay, rows entering as
        others leave, each step a CUDA graph; auto is slots on a GPU where the model allows, and else plain.
    trust_remote_code: whether code that comes with a model on the hub or in a folder is run.
    date: what a chat template that writes the date is told; the day a run began where left out.

    Raises ValueError for batch_tokens below 1 and for an empty stop text.
    """

    path: str = EMBEDDED
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    stop: str | None = None
    lora: LoraConfig | None = None
    checkpointing: bool | Literal["auto"] = "auto"
    batch_tokens: int | Literal["auto"] = "auto"
    decoding: Literal["auto", "plain", "slots"] = "auto"
    trust_remote_code: bool = False
    date: dt.date | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.batch_tokens != "auto" and self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be 1 or more, got {self.batch_tokens}")
        if self.stop == "":
            raise ValueError("stop must hold some text; leave it out where EOS alone ends a response")


def load_model(model: str | ModelConfig = EMBEDDED, *, trainable: bool = False) -> "HFModel":
    """A model by its name, or with settings.

    model: its `path` (see `ModelConfig`), or all settings.
    trainable: whether its weights can be trained, all of them; else they are frozen.

    Raises UserError for a model that cannot be used, and for adapters, which `policy_from` makes.
    """
    config = ModelConfig(path=model) if isinstance(model, str) else model
    if config.lora:
        raise UserError("load_model takes no adapters (model.lora); tiltlab.models.loading.policy_from makes them")
    loaded: HFModel = load_reference(config, load_codec(config))
    loaded.module.requires_grad_(trainable)
    return loaded


def load_settings(config: ModelConfig, **options: Any) -> Any:
    """A model's own config, as transformers has it, and nothing else of the model.

    options: for `from_pretrained`.

    Raises UserError where there is none that can be read.
    """
    from transformers import AutoConfig

    name, source = model_source(config)
    with _said_plainly(config.path):
        return AutoConfig.from_pretrained(name, **source, **options)


def load_codec(config: ModelConfig) -> Codec:
    """Tokenizer and limits of a model, without its weights.

    Raises UserError for a model that is missing, has no EOS, or whose own settings cannot be right.
    """
    if is_served(config.path):
        from tiltlab.models.served import served_model

        if config.stop is not None:
            raise UserError(
                f"model.stop cannot end a server's responses ({shown(config.stop)}); leave it out, or name the weights"
            )
        return served_model(config.path).codec  # type: ignore[return-value]  # what is asked of a codec, it answers
    from transformers import AutoConfig, AutoTokenizer

    name, options = model_source(config)
    with _said_plainly(config.path):
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        settings = AutoConfig.from_pretrained(name, **options)
        text = settings.get_text_config()
        given = (_generation_eos(name, options), text.eos_token_id, tokenizer.eos_token_id)
        ids = {i for value in given for i in _as_list(value)}
    if not ids:
        raise UserError(
            f"model {config.path} names no EOS token, so no response of it would ever be complete; "
            "set eos_token_id in its generation_config.json"
        )
    require_sizes(config.path, text)
    require_known_tokens(config.path, tokenizer, ids, text)
    context = longest_context(text) or tokenizer.model_max_length
    date = config.date or today()
    codec = Codec(config.path, tokenizer, tuple(sorted(ids)), context, text.vocab_size, config.stop, date)
    assert codec.end_ids  # raises UserError for a stop text that cannot be
    return codec


def _generation_eos(name: str, options: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(name, **options).eos_token_id
    except (OSError, ValueError):  # many models come without one
        if (Path(name) / "generation_config.json").is_file():
            raise
        return None


def load_reference(config: ModelConfig, codec: Codec) -> Any:
    """The model as it is, frozen: an HFModel, or a ServedModel where the path is a server's address.

    codec: of the same model (`load_codec`).

    Raises UserError for a model that cannot be used.
    """
    if is_served(config.path):
        from tiltlab.models.served import served_model

        return served_model(config.path)
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from tiltlab.models.hf import HFModel
    from tiltlab.models.saved import load_module
    from tiltlab.models.sizes import ON_CPU

    disable_progress_bar()  # they would run through the study's own

    device = pick_device(config)
    on_gpu = torch.device(device).type == "cuda"
    dtype = {"auto": torch.bfloat16 if on_gpu else torch.float32}.get(config.dtype) or getattr(torch, config.dtype)
    name, options = model_source(config)
    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    with _said_plainly(config.path):
        module, left_out = load_module(
            AutoModelForCausalLM, name, f"model {config.path}", **options, **safe, dtype=dtype
        )
    if getattr(module, "peft_config", None):
        raise UserError(f"model {config.path} carries adapters; name a model without, or merge them into it")
    if left_out:
        told = "model %s: %d tensors have no place in it and are left out (such as %s)"
        logging.getLogger(__name__).warning(told, config.path, len(left_out), left_out[0])
    if "gguf_file" in options:
        module = _plain(module)
    with _said_plainly(config.path):
        module = module.to(device).requires_grad_(False)
    held = ON_CPU if config.batch_tokens == "auto" else config.batch_tokens
    model = HFModel(
        module, codec, batch_tokens=held, checkpointing=config.checkpointing is True, decoding=config.decoding
    )
    if config.batch_tokens == "auto":
        model.fit()
    return model


@contextmanager
def policy_from(reference: Any, config: ModelConfig, seed: int, world: World = ALONE) -> Iterator[tuple[Any, Any]]:
    """A policy that starts as the reference, and the reference to train it against: (HFModel, HFModel).

    reference: an HFModel, frozen.
    config: of the same model; says whether to train adapters, and whether to recompute activations (`auto` does not:
        who knows how much is to be held decides that, study/run.py).
    seed: of the adapters' random start.
    world: of the ranks that train together, each with a reference of its own; the policy is then a ShardedHFModel.

    Full fine-tuning copies the weights. With LoRA both are one module, the one that `reference` holds, and the
    reference is its view without adapters. When the block ends, adapters are taken out again, and weights that were put
    away are back on their device, so use the two views within. Both views hold and recompute alike.

    Raises UserError for adapters that this model cannot have.
    """
    from tiltlab.models.adapters import with_adapters
    from tiltlab.models.hf import HFModel

    given = None if config.batch_tokens == "auto" else config.batch_tokens
    keep: dict[str, Any] = {
        "batch_tokens": given or reference.batch_tokens,
        "scoring_tokens": given or reference.scoring_tokens,
        "checkpointing": config.checkpointing is True,
        "decoding": config.decoding,
    }
    if config.lora is None:
        module = copy.deepcopy(reference.module).requires_grad_(True)
        frozen = HFModel(reference.module, reference.codec, **keep)
        try:
            yield _policy(module, reference.codec, world, keep), frozen
        finally:
            frozen.unshelve()
        return
    wrapped = with_adapters(reference.module, reference.codec.name, config.lora, seed)
    try:
        yield _policy(wrapped, reference.codec, world, keep), HFModel(wrapped, reference.codec, **keep, adapter=False)
    finally:
        wrapped.unload()


def _policy(module: Any, codec: Codec, world: World, keep: dict[str, Any]) -> Any:
    from tiltlab.models.hf import HFModel

    if world.size == 1:
        return HFModel(module, codec, **keep)
    from tiltlab.models.sharded import ShardedHFModel

    return ShardedHFModel(module, codec, world=world, **keep)


def _plain(module: Any) -> Any:
    """The same model without what transformers notes of its quantised origin: it trains, saves and loads as any."""
    config = copy.deepcopy(module.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(module)(config).to(module.dtype)
    plain.load_state_dict(module.state_dict())
    return plain


def pick_device(config: ModelConfig) -> str:
    """The device asked for; for "auto", "cuda" where there is a GPU, else "cpu"."""
    import torch

    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def model_source(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds the model, and what else to tell it."""
    if config.path == EMBEDDED:
        return str(files("tiltlab.embedded") / "sums-0.3M"), {}
    try:
        path = Path(config.path).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # a name that no file can have; a home that nobody has
        raise UserError(f"model {config.path} cannot be loaded: {brief(error)}") from error
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model file {config.path} does not exist")
        return str(path.parent), {"gguf_file": path.name}
    common = {"trust_remote_code": config.trust_remote_code}
    if path.is_dir():
        if (path / "adapter_config.json").is_file():  # transformers would load some other model, and these on top
            raise UserError(f"model folder {config.path} holds adapters, not a model; name the model that they are for")
        return str(path), common
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.path):
        raise UserError(f"model folder {config.path} does not exist")
    return config.path, {"revision": config.revision or "main", **common}


@contextmanager
def _said_plainly(name: str) -> Iterator[None]:
    """Turns what transformers says about a model that cannot be loaded into one line, whatever it raises. What it only
    warns of, those who call this look for themselves."""
    from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the settings of a model may be any nonsense
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(f"model {name} cannot be loaded{offline}: {_why(error)}") from error
    finally:
        set_verbosity(before)


def _why(error: Exception) -> str:
    if isinstance(error, OSError | ValueError | RuntimeError | SafetensorError):
        return brief(error)
    return f"{said(error)}; is its config.json as it should be?"


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
