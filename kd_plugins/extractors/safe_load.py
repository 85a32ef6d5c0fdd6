"""Reading what torch.save wrote, with PyTorch's own unpickler, which runs no code from the file."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections import OrderedDict
from os import path as osp
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

_PICKLES_BEFORE_1_6 = 4  # that torch.save wrote behind one another; the last one has the objects


class _StandIn:
    """Stands for a class or function that the file names: PyTorch calls it, and it does nothing.

    The result is an OrderedDict, the one type which PyTorch's unpickler lets a file fill with items as well as with attributes. Its
    first key names what it stands for, so that it is never taken for weights.
    """

    def __new__(cls, *args: object) -> Any:
        """Ignore the arguments."""
        return OrderedDict({f"<{cls.__module__}.{cls.__qualname__} object>": None})


class _NumPyStandIn:
    """The same for NumPy, whose objects are restored from tuples."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


class _DequeStandIn:
    """The same for deques, which are filled like lists."""

    def __new__(cls, *args: object) -> Any:
        """Ignore the arguments."""
        return []


def _stand_in(name: str) -> type:
    base = _DequeStandIn if name == "collections.deque" else _NumPyStandIn if name.startswith("numpy.") else _StandIn
    module, _, qualified = name.rpartition(".")
    return type(qualified, (base,), {"__module__": module})


def _foreign_names(path: Path) -> list[str]:
    """The classes and functions that a file names beyond those which PyTorch admits."""
    if zipfile.is_zipfile(path):
        return get_unsafe_globals_in_checkpoint(path)
    with open(path, "rb") as file:
        operations = [operation for _ in range(_PICKLES_BEFORE_1_6) for operation in pickletools.genops(file)]
    names = [str(name).replace(" ", ".") for code, name, _ in operations if code.name == "GLOBAL"]
    return [name.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.") for name in names]


def load_weights(path: Path) -> dict[str, Any]:
    """Read a state dict from a .safetensors file, or from what torch.save wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds something else.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f"{str(path)!r} is no file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_plain(path, inert=True)
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"cannot be read as plain weights: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"holds a {type(state).__name__}, expected a state dict")
    return state


def load_plain(path: Path, inert: bool = False) -> Any:
    """Read what torch.save wrote: tensors, numbers, strings, and lists and dicts of them.

    Args:
        path: the file.
        inert: whether objects of any class may stand beside them, installed or not: arguments, callbacks and the like. None of
            their code runs. What stands in for them names the class: OrderedDict({'<package.Class object>': None}).

    Returns:
        What was saved; tensors on the CPU. Those of a file with other objects are mapped, so that of a gigabyte of optimizer state
        only what is used is read.

    Raises:
        ValueError: it is something else, or damaged; the message says so in a few words. (PyTorch's own explain how to read the
            file nonetheless, by running its code.)
    """
    if not osp.isfile(path):
        raise ValueError("it is no file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each kind of damage has its own
        text, is_told = str(error), isinstance(error, (RuntimeError, OSError))  # of others: "101", "pop from empty list"
    if inert and "GLOBAL" in text:
        try:
            with safe_globals([_stand_in(name) for name in _foreign_names(path)]):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:
            text = str(error)
        else:
            if isinstance(content, OrderedDict) and str(next(iter(content), "")).startswith("<"):
                raise ValueError(f"it holds a {next(iter(content))}, which is code")
            return content
    if foreign := re.search(r"\bGLOBAL (\S+)", text):
        raise ValueError(f"it names {foreign[1]}, which is code")
    reason = (text.splitlines() or [""])[0]
    if not is_told or not reason or "weights_only" in reason or "Weights only" in reason:
        reason = "it is no file of tensors, numbers and strings that torch.save wrote"
    raise ValueError(reason)
