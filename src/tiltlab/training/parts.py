"""The optimiser's state of several ranks on a disk: a folder of safetensors files, each rank's part in its own.

Written and read by torch.distributed.checkpoint, so that another number of ranks, or one, can go on with it. Its own
format has a pickled index; the one used here (that of the hub) has none.

Left out on purpose: a single process's state, which is one file (optimizer.py).
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tiltlab.errors import UserError, brief
from tiltlab.models.saved import read_tensors
from tiltlab.models.shards import Shards, part_of


def save_parts(own: Mapping[str, Tensor], shards: Shards, folder: Path) -> None:
    """Write this rank's part, to a folder that all ranks see. A collective.

    own: this rank's part of each tensor, by "kind/name of a weight"; of the kind "step", one number that all have.

    Raises OSError where it cannot be written.
    """
    state = {key: _whole(key, tensor, shards) for key, tensor in own.items()}
    try:
        save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise OSError(brief(next(iter(error.failures.values()))[0])) from error


def restore_parts(own: Mapping[str, Tensor], shards: Shards | None, path: Path) -> None:
    """Read back what any number of ranks wrote. A collective, where there are several.

    own: as for `save_parts`; whole tensors, where there are no shards.
    path: the folder, or the file that a single process wrote.

    Raises UserError, with nothing changed, for files that are not whole, or are another model's.
    """
    like = {key: _whole(key, tensor, shards) if shards else tensor for key, tensor in own.items()}
    found = _of_folder(like, shards, path) if path.is_dir() else _of_file(like, shards, path)
    with torch.no_grad():
        for key, tensor in found.items():
            own[key].copy_(tensor)


def _of_file(like: Mapping[str, Tensor], shards: Shards | None, path: Path) -> dict[str, Tensor]:
    """This rank's part of each tensor."""
    wholes = read_tensors(path, like)
    return {key: _part(key, tensor, shards) for key, tensor in wholes.items()} if shards else wholes


def _of_folder(like: Mapping[str, Tensor], shards: Shards | None, folder: Path) -> dict[str, Tensor]:
    """This rank's part of each tensor."""
    _require_all(folder, like)
    found = {key: torch.empty_like(tensor, device="cpu") for key, tensor in like.items()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # where one process is what is meant
            load(dict(found), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=shards is None)
    except (CheckpointException, OSError, SafetensorError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{folder} cannot be read: {brief(error)}") from error
    return {key: part_of(tensor) for key, tensor in found.items()}


def _whole(key: str, part: Tensor, shards: Shards) -> Tensor:
    kind, name = key.split("/", 1)
    return part if kind == "step" else shards.whole(name, part)


def _part(key: str, whole: Tensor, shards: Shards) -> Tensor:
    kind, name = key.split("/", 1)
    return whole if kind == "step" else shards.part(name, whole)


def _require_all(folder: Path, wanted: Mapping[str, Tensor]) -> None:
    """Raises UserError unless the files hold every number of every tensor, and no other tensors."""
    try:
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{folder} cannot be read: {brief(error)}") from error
    if lacking := sorted(wanted.keys() - found.keys()):
        raise UserError(f"{folder} lacks {len(lacking)} of its tensors (such as {lacking[0]})")
    if more := sorted(found.keys() - wanted.keys()):
        raise UserError(f"{folder} has no place in the model for {len(more)} of its tensors (such as {more[0]})")
    for key, tensor in wanted.items():
        kept = found[key]
        assert isinstance(kept, TensorStorageMetadata)
        numbers = sum(math.prod(chunk.sizes) for chunk in kept.chunks)
        if kept.size != tensor.shape or numbers != tensor.numel():
            raise UserError(f"{folder} lacks a part of its tensors (such as of {key})")
