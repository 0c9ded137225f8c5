"""Weights on a disk: safetensors only, and whole. What a file lacks is never made up, and nothing is unpickled.

Left out on purpose: which model, and where it lies (loading.py).
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tiltlab.errors import UserError
from tiltlab.models.weights import tensors_of
from tiltlab.storage.files import read_json

ADAPTERS = "adapter_model.safetensors"


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name, on the CPU.

    expected: tensors by name, of which names and shapes are compared, not values.

    Raises UserError for a file that cannot be read, or whose tensors are not those expected.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    _refuse(str(path), "lacks", expected.keys() - tensors.keys())
    _refuse(str(path), "has no place in the model for", tensors.keys() - expected.keys())
    _refuse(str(path), "has another shape for", [n for n in tensors if tensors[n].shape != expected[n].shape])
    return tensors


def load_module(kind: Any, source: str, called: str, **options: Any) -> tuple[Any, list[str]]:
    """`kind.from_pretrained(source)`, and the names of the tensors that the module has no place for.

    kind: a model class of transformers.
    source: a folder, or a name on the hub.
    called: what to say it is where it cannot be used.
    options: for `from_pretrained`.

    Raises UserError where a weight is missing or has another shape: transformers fills it with random numbers, and only
    warns.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # its report has a line for each weight; what matters is said here, in one
    try:
        module, info = kind.from_pretrained(source, **options, output_loading_info=True, ignore_mismatched_sizes=True)
    finally:
        logging.set_verbosity(before)
    _refuse(called, "lacks", info.get("missing_keys"))
    _refuse(called, "has another shape for", [name for name, *_ in info.get("mismatched_keys") or ()])
    return module, sorted(info.get("unexpected_keys") or ())


def restore_module(module: Any, folder: Path) -> None:
    """Put the weights of a checkpoint on a module of the same class and config.

    folder: as `save_pretrained` writes it, in safetensors.

    Raises UserError for weights that cannot be read or are another model's; the module then stays as it was.
    """
    module.load_state_dict(read_module(module, folder))


def read_module(module: Any, folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by the names that a module of the same class and config has for them.

    Raises UserError as `restore_module` does.
    """
    read_json(folder / "config.json")
    like: dict[str, Any] = {"config": copy.deepcopy(module.config), "dtype": module.dtype, "use_safetensors": True}
    with _unreadable(folder):  # without a config, transformers may take one of its own, of a size of its own
        saved, unexpected = load_module(type(module), str(folder), str(folder), **like)
    _refuse(str(folder), "has no place in the model for", unexpected)
    own, its = (dict(one.named_parameters()).keys() for one in (module, saved))  # tied ones have one name in both
    _refuse(str(folder), "ties otherwise than the model", own ^ its)
    weights: dict[str, Tensor] = saved.state_dict()
    return weights


def restore_adapters(module: Any, folder: Path) -> None:
    """Put the adapters of a folder on a module of peft that has such.

    Raises UserError for adapters that cannot be read or are another module's; the module then stays as it was.
    """
    own = dict(tensors_of(module))
    with torch.no_grad():
        for name, tensor in read_adapters(module, folder).items():
            own[name].copy_(tensor)


def read_adapters(module: Any, folder: Path) -> dict[str, Tensor]:
    """The adapters of a folder by the names that a module of peft has for them.

    Raises UserError as `restore_adapters` does.
    """
    import peft

    read_json(folder / "adapter_config.json")
    own = dict(tensors_of(module))
    expected = peft.get_peft_model_state_dict(module, state_dict=own, save_embedding_layers=False)
    names = {id(tensor): name for name, tensor in own.items()}
    return {names[id(expected[key])]: tensor for key, tensor in read_tensors(folder / ADAPTERS, expected).items()}


def load_adapters(module: Any, folder: Path) -> Any:
    """A module with the adapters of a folder on it, as peft wraps it.

    module: a causal LM of transformers, without adapters; its layers are changed in place.

    Raises UserError for adapters that are not whole, not this model's, or not in safetensors.
    """
    import peft

    if not (folder / ADAPTERS).is_file():
        raise UserError(f"adapters {folder} lack {ADAPTERS}; nothing is loaded from other files")
    with _unreadable(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tensors are missing is said below
        wrapped = peft.PeftModel.from_pretrained(module, str(folder))
    restore_adapters(wrapped, folder)
    return wrapped


@contextmanager
def _unreadable(folder: Path) -> Iterator[None]:
    """Turns what libraries say about a folder that cannot be loaded into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _refuse(where: str, what: str, names: Iterable[str] | None) -> None:
    if listed := sorted(names or ()):
        raise UserError(f"{where} {what} {len(listed)} of its tensors (such as {listed[0]})")
