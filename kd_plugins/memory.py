"""How large a tile the memory has room for: what is free, and what a network needs for a pixel, measured on small images."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

SMALL = 256
"""The side of an image that goes through as a whole without being measured, and of a tile where nothing can be."""
_LARGEST = 2048
_SIDES = (64, 192)  # what is measured: the second less the first leaves out what is needed once, whatever the size
_MULTIPLE = 32
_CPU_BUDGET = 384 * 2**20  # larger tiles are slower there
_SHARE = 0.5  # of what is free
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def largest_tile(run: Callable[[int], object], device: torch.device) -> int:
    """The side of a square tile that the memory has room for.

    Args:
        run: restores a square image of this side.
        device: where.

    Returns:
        A multiple of 32 from 64 to 2048; 256 where the system does not say what a process needs (Linux and CUDA do).
    """
    free, needs = free_memory(device), [growth(partial(run, side), device) for side in _SIDES]
    if free is None or None in needs:
        return SMALL
    small, large = (need or 0 for need in needs)
    for_a_pixel = max(large - small, large / 4, 1) / (_SIDES[1] ** 2 - _SIDES[0] ** 2)
    budget = free * _SHARE if device.type == "cuda" else min(free * _SHARE, _CPU_BUDGET)
    side = math.isqrt(int(budget / for_a_pixel)) // _MULTIPLE * _MULTIPLE
    return max(2 * _MULTIPLE, min(side, _LARGEST))


def fitting_tile(run: Callable[[Tensor], object], channels: int, device: torch.device, overlap: int) -> int:
    """The side of the tiles that a network's memory has room for, twice the overlap at least; see `largest_tile`."""
    return max(largest_tile(lambda side: run(torch.rand(1, channels, side, side, device=device)), device), 2 * overlap)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device: of a GPU's own, or of the system's and the container's; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free = []
    try:
        free.append(_kilobytes(Path("/proc/meminfo"), "MemAvailable"))
        free += [int(limit.read_text()) - int(used.read_text()) for limit, used in _LIMITS if limit.exists()]
    except (OSError, ValueError):  # no Linux; a container without a limit says `max`
        pass
    return max(min(free), 0) if free else None


def growth(run: Callable[[], object], device: torch.device) -> int | None:
    """How many bytes more are in use at once while something runs; None where the system does not say."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _release()  # what was freed and is kept would not show when it is used again
        _RESET.write_text("5")  # the peak begins anew
        before = _kilobytes(_STATUS, "VmRSS")
        run()
        return max(_kilobytes(_STATUS, "VmHWM") - before, 0)
    except OSError:
        return None


def _release() -> None:
    """Return freed memory to the system, with glibc: elsewhere that is left to the C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _kilobytes(path: Path, name: str) -> int:
    """A number of a file that counts in kB, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", path.read_text())
    if found is None:
        raise OSError(f"no {name} in {path}")
    return int(found[1]) * 1024
