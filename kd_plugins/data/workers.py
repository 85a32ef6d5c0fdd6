"""Worker processes of a data loader: the signals they ignore, and how their deaths are reported."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

from kd_plugins._startup import SIGNALS


def ignore_signals() -> None:
    """Ignore signals in a worker process: a scheduler signals all processes, and the main one still needs batches to stop well."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# multiprocessing would wait for ever for a worker that ignores SIGTERM: that of a loader which something still holds
Finalize(None, _kill_workers, exitpriority=10)


class _Deaths:
    """Reports deaths of a data loader's workers only while the main thread waits for images.

    PyTorch's handler of SIGCHLD raises an error wherever the main thread is at that moment: half-way through an update, or a save.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._tell: Any = None

    def watch(self) -> None:
        """Replace that handler, if it is set: a loader sets it when it starts its first worker."""
        number = getattr(signal, "SIGCHLD", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(number)
        if getattr(handler, "__module__", None) == "torch.utils.data._utils.signal_handling":
            self._tell = handler
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._tell(number, frame)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Report deaths inside `with`.

        Raises:
            RuntimeError: a worker died, now or earlier.
        """
        if self._tell is not None:
            self._tell(signal.SIGCHLD, None)
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False


DEATHS = _Deaths()
