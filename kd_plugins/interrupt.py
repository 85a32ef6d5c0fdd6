"""What stops a run before its end: a signal, a save that fails, numbers that stay wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, ClassVar

from kd_plugins.group import largest

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
"""What schedulers and terminals send to end a run; Windows has no SIGUSR1."""


class RunStopped(Exception):
    """A run that ended early, in one sentence.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code: ClassVar[int] = 1


class Interrupted(RunStopped):
    """A signal asked for the end; the same command with `--auto_resume` goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Interrupt:
    """Notes a signal while it is entered, for the loop to look at between steps.

    A second SIGINT raises KeyboardInterrupt, but under torchrun, which passes each on to processes that have it already. Outside
    the main thread, where Python allows no handlers, signals do what they did.

    Attributes:
        received: the first signal, if any.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sends a second one
            raise KeyboardInterrupt
        if self.received is None:
            self.received = signal.Signals(number)
            # A log's stream may be in the middle of a line: that is no place to write from here.
            os.write(2, f"\n{self.received.name}: finishing this step, then saving; a second Ctrl-C stops at once.\n".encode())

    def check(self) -> None:
        """Between steps, in all processes.

        Raises:
            Interrupted: a signal came, to any of them.
        """
        if number := largest(self.received or 0):
            raise Interrupted(f"stopped by {signal.Signals(number).name}")

    def watch(self, loader: Any) -> Any:
        """A validation loader that ends with `Interrupted` at the next image: a scheduler kills what takes long to stop."""
        return _Watched(loader, self)


class _Watched:
    def __init__(self, loader: Any, interrupt: Interrupt) -> None:
        self._loader, self._interrupt = loader, interrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches: Iterable[Any] = self._loader
        for batch in batches:
            self._interrupt.check()
            yield batch


def ignore_signals() -> None:
    """In a worker process: a scheduler signals all processes of a run, and the main one still needs its batches to stop well."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
