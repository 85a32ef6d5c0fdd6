"""A run as a process of its machine: how it ends, its threads, the memory that a step frees."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from kd_plugins import group
from kd_plugins.interrupt import Interrupt, RunStopped, StoppedAtStart
from kd_plugins.options import OptionError

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of glibc's malloc.h


def run_command(name: str, pipeline: Callable[[str, Sequence[str]], Any], argv: Sequence[str]) -> int:
    """Run a pipeline in the working folder, and say in one line why it ended if it did not end well.

    Args:
        name: of the command, for that line.
        pipeline: called with the folder and the arguments.
        argv: the arguments.

    Returns:
        The exit code: 0; 2 for a command line or an option file that cannot be used; 75 for a run that a signal stopped and
        that can go on; 1 for a run that stopped by itself.
    """
    code = 0
    try:
        with Interrupt(at_once=True) if name.endswith("train") else nullcontext():
            pipeline(os.getcwd(), argv)
    except StoppedAtStart as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return stop.exit_code  # the others are not waited for: they may not have got here
    except OptionError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2  # perhaps in this process only: the others are not waited for
    except RunStopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        code = stop.exit_code
    group.leave()
    return code


def prepare_process(opt: Mapping[str, Any]) -> None:
    """Set what holds for the whole process.

    Args:
        opt: a run's options; `num_threads` sets PyTorch's threads on the CPU.
    """
    if opt.get("num_threads"):
        torch.set_num_threads(int(opt["num_threads"]))
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees, for the next one.

    It would give maps of some MiB back to the system, and pay for each of their pages when the next step asks for them again: a
    sixth of a CPU's training step was seen to go there. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest it takes
        mallopt(_TRIM_THRESHOLD, (2 << 30) - 1)
        mallopt(_TOP_PAD, 64 << 20)
