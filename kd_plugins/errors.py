"""Errors that end a run early: signals, unreadable data, memory."""

from __future__ import annotations

import re
from typing import ClassVar


class RunStopped(Exception):
    """A run that ended early, in one sentence.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code: ClassVar[int] = 1


class Interrupted(RunStopped):
    """A signal stopped the run; the same command with `--auto_resume` continues it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class StoppedAtStart(KeyboardInterrupt):
    """A signal stopped the run before its first step. Not an Exception: code that tries something out must not swallow it."""

    exit_code = Interrupted.exit_code


class BadData(RunStopped):
    """Data of the run cannot be read; the message names the dataset, the file and the fault."""


class OutOfMemory(RunStopped):
    """There is not enough memory for the next step, or for an image of the validation."""


def describe(error: Exception) -> str:
    """An error in words; of the system's, the file and what is wrong with it, without a number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


_NO_MEMORY = re.compile("allocate memory|(not enough|out of|insufficient) memory|ALLOC_FAILED", re.IGNORECASE)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; PyTorch and OpenCV have no type of their own for it on the CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))
