"""Decoded images in memory that the workers of a loader share, within a bound."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from basicsr.utils import get_root_logger

from kd_plugins import distributed
from kd_plugins.memory import free_memory
from kd_plugins.messages import show_bytes

_GUESS = 8 * 10**9  # bytes, where a system does not say what is free
_WAIT = 1.0  # seconds for a lock; a worker that was killed may hold it
_LIVE: weakref.WeakSet[DecodedImages] = weakref.WeakSet()


class DecodedImages:
    """Images by number, kept as they are read; forked processes share one copy of each.

    Args:
        count: how many images there are.
        gigabytes: how much of them is kept; by default a third of the memory that is free and that no other dataset of the process
            may still fill, shared by the processes of the run.
        name: of the dataset, for the log.
    """

    def __init__(self, count: int, gigabytes: float | None = None, name: object = None) -> None:
        free = free_memory(torch.device("cpu")) or _GUESS
        own = free // distributed.world_size() - sum(other.room for other in _LIVE)
        self.bound = int(gigabytes * 10**9) if gigabytes else max(own, 0) // 3
        self.name, self.lock = name, multiprocessing.Lock()
        # of each image its place + 1 and its shape; then how much is used, and whether it is full
        self._table = np.frombuffer(mmap.mmap(-1, 8 * (4 * count + 2)), np.int64)
        self._memory: mmap.mmap | None = None
        with contextlib.suppress(OSError, ValueError):  # a system that promises no memory before it is used has no objection
            self._memory = mmap.mmap(-1, max(min(self.bound, free), 1))
        _LIVE.add(self)

    @property
    def room(self) -> int:
        """How many bytes may still be filled."""
        return 0 if self._memory is None else len(self._memory) - int(self._table[-2])

    def __getstate__(self) -> dict[str, Any]:
        """Of a process that is not forked: it shares nothing, and keeps nothing."""
        return {"name": self.name, "bound": 0, "lock": None, "_memory": None, "_table": self._table}

    def get(self, index: int, load: Callable[[], np.ndarray]) -> np.ndarray:
        """An image, (H, W, C) uint8, not to be changed.

        Args:
            index: its number.
            load: reads it, where it is not kept.
        """
        place, *shape = self._table[4 * index : 4 * index + 4].tolist()
        if self._memory is None:
            return load()
        if place:
            return np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), place - 1).reshape(shape)
        image = load()
        start = self._reserve(image.nbytes)
        if start is not None:
            np.frombuffer(self._memory, np.uint8, image.nbytes, start)[:] = image.ravel()
            self._table[4 * index + 1 : 4 * index + 4] = image.shape
            self._table[4 * index] = start + 1  # last: from here on others read it
        return image

    def _reserve(self, size: int) -> int | None:
        if self._memory is None or self._table[-1] or not self.lock.acquire(timeout=_WAIT):
            return None
        try:
            start = int(self._table[-2])
            if self._table[-1]:  # another worker has said so meanwhile
                return None
            if start + size > len(self._memory):
                self._table[-1] = 1
                get_root_logger().info(
                    f"dataset {self.name!r}: {show_bytes(start)} of decoded images are kept, the bound; the others are read "
                    "anew each time (`cache: {gigabytes: 4}` sets it)."
                )
                return None
            self._table[-2] = start + size
            return start
        finally:
            self.lock.release()
