"""Signals during a training: noted when they come, acted on between steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from kd_plugins import distributed
from kd_plugins._startup import SIGNALS
from kd_plugins.errors import BadData, Interrupted, StoppedAtStart

_TROUBLE = 1000  # above every signal: what is told of comes before it


class Interrupt:
    """Catches signals inside `with`, for the loop to act on between steps.

    A second SIGINT raises KeyboardInterrupt, except under torchrun, which sends each one twice. Outside the main thread, where
    Python allows no handlers, signals keep their effect; so does a SIGHUP that `nohup` has switched off.

    Args:
        at_once: whether a signal raises `StoppedAtStart` at once, where there is nothing to save yet.

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
        """Stop the run if it is to stop. All processes call this between steps.

        Args:
            trouble: why this process has no data; empty where it has.

        Raises:
            Interrupted: a signal came, to any of them.
            BadData: one of them has no data.
        """
        number = distributed.all_reduce_max(_TROUBLE if trouble else self.received or 0)
        if number == _TROUBLE:
            raise BadData(next(text for text in distributed.all_gather_objects(trouble) if text))
        if number:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")

    def watch(self, loader: Any) -> Any:
        """A validation loader that ends with `Interrupted` at the next image: a scheduler kills what takes long to stop."""
        return _Watched(loader, self)


def _say(text: str) -> None:
    """Write to the terminal; if it is gone, send later output nowhere: an error there would come before anything is saved.

    The log's own stream may be in the middle of a line, so a handler cannot use it.
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
