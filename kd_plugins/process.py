"""Settings of the process: threads, and the memory that a step frees."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of glibc's malloc.h


def prepare_process(opt: Mapping[str, Any]) -> None:
    """Apply the settings of a run to the process.

    Args:
        opt: a run's options; `num_threads` sets PyTorch's threads on the CPU.
    """
    if opt.get("num_threads"):
        torch.set_num_threads(int(opt["num_threads"]))
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees, for the next one.

    Otherwise it returns blocks of some MiB to the system, and pays for each page when the next step asks for them again: a sixth of
    a training step on a CPU was measured to go there. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest it takes
        mallopt(_TRIM_THRESHOLD, (2 << 30) - 1)
        mallopt(_TOP_PAD, 64 << 20)
