"""Signals while PyTorch is imported, which takes seconds: a training that a scheduler stops then ends as it would later on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_EXIT_CODE = 75  # that of kd_plugins.errors.Interrupted
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
"""What schedulers, terminals and dropped connections send to end a run; Windows has two of them."""


def catch_early() -> None:
    """End with exit code 75 from here on, if this process is a training; `run_command` takes over."""
    words = sys.orig_argv[1:]
    is_script = os.path.basename(sys.argv[0]) == "basicsr" and sys.argv[1:2] == ["train"]
    is_module = words[:2] == ["-m", "kd_plugins.train"] or words[:3] == ["-m", "kd_plugins.cli", "train"]
    for number in SIGNALS if is_script or is_module else ():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    text = f"\nbasicsr train: stopped by {signal.Signals(number).name} before the first step; the same command starts again\n"
    try:
        os.write(2, text.encode())
    finally:
        os._exit(_EXIT_CODE)
