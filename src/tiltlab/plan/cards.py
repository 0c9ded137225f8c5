"""GPUs by name, and what of a device can be used.

Memory is what `nvidia-smi` tells; peaks are NVIDIA's data sheets' for dense bf16 with float32 sums, without sparsity.
"""

import os
import re

from tiltlab.errors import UserError, shown
from tiltlab.plan.shapes import Device
from tiltlab.system.devices import device_name

RESERVED = 2.5e9
"""Bytes of a card that are set aside: the CUDA context, cuBLAS, and what an allocator cannot hand out; assumed."""

CPU_CORE = 100e9
"""FLOP/s of a CPU core at its best; assumed. Two cores of a server did 212e9 (docs/speed.md)."""

CPU_BANDWIDTH = 20e9
"""Bytes a second from the memory of a CPU; assumed."""


_MIB = 1 << 20

# MiB, FLOP/s (dense bf16), bytes a second from its memory, and to another card (NVLink, or PCIe 4 x16)
_CARDS: dict[str, tuple[int, float, float, float]] = {
    "4090": (24564, 165e12, 1.008e12, 32e9),  # GeForce RTX 4090, Ada architecture white paper
    "l40s": (46068, 362e12, 0.864e12, 32e9),  # L40S data sheet
    "h100": (81559, 989e12, 3.35e12, 450e9),  # H100 SXM data sheet
    "a100-80": (81920, 312e12, 2.039e12, 300e9),  # A100 80GB SXM data sheet
    "h200": (143771, 989e12, 4.8e12, 450e9),  # H200 SXM data sheet
}

CARDS = tuple(_CARDS)
"""Names, from the smallest memory to the largest."""


def card(name: str) -> Device:
    """A card by its name in `CARDS`, or by its memory, "24 GB".

    Raises UserError for any other.
    """
    if name.lower() in _CARDS:
        mebibytes, *rates = _CARDS[name.lower()]
        return _gpu(name.lower(), mebibytes * _MIB, *rates)
    size = re.fullmatch(r"(\d{1,5}(?:\.\d+)?) ?(GB|GiB)", name.strip(), re.IGNORECASE)
    memory = int(float(size[1]) * (1 << 30 if size[2].lower() == "gib" else 10**9)) if size else 0
    if memory <= RESERVED:
        names = ", ".join(CARDS)
        raise UserError(f'--gpu {shown(name)}: no such card; it is {names}, or a size of more than 2.5 GB, "24 GB"')
    return _gpu(name.strip(), memory)


def this_machine(device: str) -> Device:
    """A device of this machine.

    device: as torch names it, such as "cuda:0"; whatever is no GPU is told by the machine's own memory.
    """
    import torch

    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(device)
        known = next((card for card in _CARDS if card.split("-")[0] in about.name.lower()), None)
        return _gpu(about.name, about.total_memory, *(_CARDS[known][1:] if known else ()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flops = CPU_CORE * (os.cpu_count() or 1)
    return Device(device_name(device), memory, memory, flops, CPU_BANDWIDTH, is_gpu=False, link=CPU_BANDWIDTH)


def _gpu(
    name: str, memory: int, flops: float | None = None, bandwidth: float | None = None, link: float | None = None
) -> Device:
    return Device(name, memory, int(memory - RESERVED), flops, bandwidth, link=link)
