"""Which devices there are for the work to be spread over, and how a process settles on its own."""

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tiltlab.errors import UserError
from tiltlab.system.world import ON_VERL

Result = TypeVar("Result")


def usable_devices(wanted: str) -> list[str]:
    """All devices that jobs can be spread over, as torch names them.

    wanted: what a recipe asks for; "auto" is every GPU, or the CPU where there is none, and "cuda" every GPU.

    Raises UserError for one that is not there.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted in ("auto", "cuda") and gpus:
        return [f"cuda:{i}" for i in range(gpus)]
    if wanted == "auto":
        return ["cpu"]
    asked = f"the recipe asks for device {wanted}"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"{asked}, and torch knows none of that name; it is auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not gpus:
        raise UserError(f"{asked}, and there is no GPU that torch can use")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(f"{asked}, and the last GPU is cuda:{gpus - 1}")
    if device.type != "cuda":
        _try_device(wanted, asked)
    return [wanted]


def places_for(ranks: int, devices: Sequence[str]) -> list[str]:
    """Where jobs can be run side by side, each as the devices of its ranks in one text (see `apart`).

    ranks: of a job. Those of a GPU have one each, those of a CPU share it.
    devices: all that there are, of one kind.

    Raises UserError where there are too few.
    """
    if not devices[0].startswith("cuda"):
        return ["+".join([device] * ranks) for device in devices]
    if ranks > len(devices):
        raise UserError(
            f"gpus: {ranks}, and this machine has {len(devices)} that torch can use; a job that needs more machines "
            f"than one {ON_VERL}"
        )
    return ["+".join(devices[i : i + ranks]) for i in range(0, len(devices) - ranks + 1, ranks)]


def apart(place: str) -> list[str]:
    """The devices of a place, that of rank 0 first.

    place: of `places_for`.
    """
    return place.split("+")


def gpu_beside(model: Any, device: str) -> tuple[str | None, bool]:
    """The GPU of another process, as CUDA_VISIBLE_DEVICES is to name it there, None for a CPU; and whether it is the
    model's own.

    model: a torch.device, that of the model here.
    device: "same", or a GPU as this process numbers them.

    Raises UserError for one that is not there.
    """
    import torch

    if model.type != "cuda":
        if device != "same":
            raise UserError(f"engine.device {device}: the model is on {model}, and so must the engine be: device same")
        return None, False
    own = model.index or 0
    wanted = own if device == "same" else torch.device(device).index or 0
    if wanted >= torch.cuda.device_count():
        raise UserError(f"engine.device {device}: the last GPU is cuda:{torch.cuda.device_count() - 1}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",")[wanted] if visible else str(wanted)), wanted == own


def _try_device(wanted: str, asked: str) -> None:
    # Not for GPUs: this process computes nothing on them, and would hold some of their memory until it ends.
    import torch

    try:
        torch.ones(1, device=wanted).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"{asked}, and torch cannot compute on it here") from error


def device_name(device: str) -> str:
    """What a device is: a GPU's name, "CPU", or torch's name of another one.

    device: as torch names it.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return "CPU" if device == "cpu" else device


def own_number(device: str) -> str:
    """A device as the machine numbers its GPUs: CUDA_VISIBLE_DEVICES may leave this process others in another order.

    device: as torch names it.
    """
    kind, _, number = device.partition(":")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    known = kind == "cuda" and int(number or 0) < len(visible) and visible[int(number or 0)].strip()
    return f"cuda:{known}" if known else device


def cores_each(processes: int) -> int:
    """CPU threads of each of so many processes, which share the cores out between them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def settle(threads: int, device: str) -> None:
    """Have this process compute on its device, with so many CPU threads: sums come out a little different with another
    number of them, so a study keeps to one, however few of its jobs are left."""
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))  # fewer where OMP_NUM_THREADS says so
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # or what names no device of its own would land on the first


def free_bytes(device: Any) -> int | None:
    """Bytes that this process can still have on a GPU, those that torch keeps for it included; None elsewhere.

    device: as torch names it.
    """
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free: int = torch.cuda.mem_get_info(device)[0]
    return free + kept


def unless_memory_runs_out(work: Callable[[], Result]) -> Result | None:
    """What `work` returns, which is not None; None where a device's memory ran out, with what it had made given back.

    A process that the kernel kills for want of host memory, and Python's MemoryError, are no case of this.
    """
    import torch

    try:
        return work()
    except torch.OutOfMemoryError:
        pass  # only once the handler is left does its traceback let go of the tensors that it holds
    give_back()
    return None


def give_back() -> None:
    """Give a GPU back what torch keeps of it for later, and nobody uses: another process cannot have it before."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
