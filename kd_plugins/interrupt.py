"""What stops a run before its end: a signal, a save that fails, numbers that stay wrong."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar

from kd_plugins.group import gathered, largest

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
"""What schedulers and terminals send to end a run, and connections that drop; Windows has two of them."""

_TROUBLE = 1000  # above every signal: what is told of comes before it


class RunStopped(Exception):
    """A run that ended early, in one sentence.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code: ClassVar[int] = 1


class Interrupted(RunStopped):
    """A signal asked for the end; the same command with `--auto_resume` goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class StoppedAtStart(KeyboardInterrupt):
    """A signal asked for the end before the first step. Not an Exception: what tries something out is not to swallow it."""

    exit_code = Interrupted.exit_code


class BadData(RunStopped):
    """Data of the run cannot be read; the message names the dataset, the file, and what is wrong."""


class OutOfMemory(RunStopped):
    """There is not enough memory for the next step, or for an image of the validation."""


_NO_MEMORY = re.compile("allocate memory|(not enough|out of|insufficient) memory|ALLOC_FAILED", re.IGNORECASE)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory could not be had; PyTorch's and OpenCV's have no type of their own for it on the CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


class Interrupt:
    """Notes a signal while it is entered, for the loop to look at between steps.

    A second SIGINT raises KeyboardInterrupt, but under torchrun, which passes each on to processes that have it already. Outside
    the main thread, where Python allows no handlers, signals do what they did; so does a SIGHUP that `nohup` has switched off.

    Args:
        at_once: whether a signal raises `StoppedAtStart`, where there is nothing to save yet.

    Attributes:
        received: the first signal, if any.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in SIGNALS if not (number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN)]
            self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sends a second one
            raise KeyboardInterrupt
        if self.at_once:
            _say("")
            raise StoppedAtStart(f"stopped by {signal.Signals(number).name} before the first step; the same command starts again")
        if self.received is None:
            self.received = signal.Signals(number)
            _say(f"\n{self.received.name}: finishing this step, then saving; a second Ctrl-C stops at once.\n")

    def check(self, trouble: str = "") -> None:
        """Between steps, in all processes.

        Args:
            trouble: why this process has no data.

        Raises:
            Interrupted: a signal came, to any of them.
            BadData: one of them has no data.
        """
        number = largest(_TROUBLE if trouble else self.received or 0)
        if number == _TROUBLE:
            raise BadData(next(text for text in gathered(trouble) if text))
        if number:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")

    def watch(self, loader: Any) -> Any:
        """A validation loader that ends with `Interrupted` at the next image: a scheduler kills what takes long to stop."""
        return _Watched(loader, self)


def _say(text: str) -> None:
    """Write to the terminal, and leave it if it is gone: whatever is written there later would raise, before anything is saved.

    A log's stream may be in the middle of a line: that is no place to write from a handler.
    """
    for stream, said in ((1, ""), (2, text)):
        try:
            os.write(stream, said.encode())
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


class _Watched:
    def __init__(self, loader: Any, interrupt: Interrupt) -> None:
        self._loader, self._interrupt = loader, interrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] = iter(self._loader)
        while True:
            batch, trouble = None, ""
            try:
                batch = next(batches)
            except StopIteration:
                return
            except BadData as error:
                trouble = str(error)
            self._interrupt.check(trouble)
            yield batch


def ignore_signals() -> None:
    """In a worker process: a scheduler signals all processes of a run, and the main one still needs its batches to stop well."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Deaths:
    """Deaths of a data loader's workers, told while its images are waited for.

    PyTorch's handler of SIGCHLD raises an error wherever the main thread is just then: between the halves of an update, or a save.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._tell: Any = None

    def watch(self) -> None:
        """Take the place of that handler, if it is there: a loader sets it when it starts its first worker."""
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
        """While the main thread waits for images.

        Raises:
            RuntimeError: a worker died, now or before.
        """
        if self._tell is not None:
            self._tell(signal.SIGCHLD, None)
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False


DEATHS = _Deaths()
