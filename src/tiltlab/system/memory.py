"""Settings of this process that torch has no say in. Call `tune` before torch is imported.

Large tensors come and go in every step of training. As Linux and glibc are set up, each of them is fresh memory, handed
out page by page: on a 2-core machine, page faults took a third of a training step. Two settings stop that: torch asks
for huge pages, and glibc keeps what is freed for the next tensor. Elsewhere than on Linux with glibc neither matters.
"""

import ctypes
import os
import platform
import warnings

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_LARGEST_THRESHOLD = 32 << 20  # glibc allows no more
_KEEP, _STEP = 2**31 - 1, 64 << 20


def tune() -> None:
    """Make allocation cheap on CPU, and keep libraries from talking over the progress bars."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP)
        libc.mallopt(_TOP_PAD, _STEP)
