"""What this process was started as, before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
from types import FrameType

_EXIT_CODE = 75  # that of kd_plugins.errors.Interrupted
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
"""What schedulers, terminals and dropped connections send to end a run; Windows has two of them."""

_LIBRARIES = {
    "torch": "pip install torch==2.13.0 torchvision==0.28.0",
    "basicsr": "basicsr setup",
}
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def command_line() -> list[str] | None:
    """The words behind `basicsr` or `python -m kd_plugins.cli`; None in any other process, a command's workers included."""
    words = sys.orig_argv[1:]
    while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):  # Python's own flags
        words = words[2 if words[0] in ("-X", "-W") else 1 :]
    if words[:2] == ["-m", "kd_plugins.cli"]:
        return words[2:]
    is_script = bool(words) and os.path.basename(words[0]).removesuffix(".exe") == "basicsr"
    return words[1:] if is_script else None


def share_cores() -> None:
    """Let OpenMP's threads sleep soon where they wait for one another, unless the environment says how they wait.

    By default they spin for milliseconds: on a busy machine they hold the very core that the thread they wait for needs
    (docs/performance.md). 3000 spins cost nothing to speak of on a quiet one. GNU's OpenMP reads this when PyTorch is imported.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "3000"


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step or tile, unless the environment says what it does.

    By default it returns blocks of some MiB to the system, and pays for each page when they are asked for again: half of a
    tile's time on a CPU (docs/performance.md). Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    if not mallopt(_MMAP_THRESHOLD, 1 << 30):
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc before 2.35 takes
    mallopt(_TRIM_THRESHOLD, (2 << 30) - 1)


def catch_signals() -> None:
    """End with exit code 75 where a scheduler stops a training, as it would later on; the training takes over when it begins."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    text = f"\nbasicsr train: stopped by {signal.Signals(number).name} before the first step; the same command starts again\n"
    try:
        os.write(2, text.encode())
    finally:
        os._exit(_EXIT_CODE)


def require_libraries() -> None:
    """Look for what kd_plugins' own installation does not bring, since its order matters.

    Raises:
        ImportError: PyTorch or BasicSR is not installed; the message says how to install it.
    """
    for name, command in _LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{name} is not installed: run `{command}`", name=name)
