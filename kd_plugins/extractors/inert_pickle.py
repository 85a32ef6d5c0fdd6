"""Reading the tensors of a training framework's checkpoint without running the code that its pickle asks for."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2


class Inert:
    """Stands for every class and function of a pickle that is not on the list: takes any call and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __call__(self, *args: object, **kwargs: object) -> Inert:
        """Ignore the arguments."""
        return self

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the item."""

    def append(self, item: object) -> None:
        """Ignore the item."""

    def extend(self, items: object) -> None:
        """Ignore the items."""


class _Rebuild:
    """A function of the list, behind an object that a pickle can call but not write to."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle may not change a function")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(_rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(_rebuild_parameter),
}


class InertUnpickler(pickle.Unpickler):
    """Builds tensors, dicts, lists, tuples, numbers and strings; whatever else a pickle names becomes an `Inert`.

    `find_class` is the only way from a pickle to code. It imports nothing here. torch's own subclass of this adds the names of
    its storage types, which are data.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The admitted object of that name, else the class `Inert`."""
        return _ADMITTED.get((module_name, global_name), Inert)


def load_inert(path: Path) -> Any:
    """Read a file that torch.save wrote (since 1.6, a zip), with all its foreign objects replaced by inert ones.

    Tensors are mapped, not read: of a gigabyte of optimizer state only what is used is ever fetched from the disk.

    Args:
        path: The file.

    Returns:
        What was saved; tensors on the CPU.

    Raises:
        ValueError: It is another kind of file.
        pickle.UnpicklingError, RuntimeError: It is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("no zip archive as torch.save writes it")
    with zipfile.ZipFile(path) as archive:
        # torch.load would hand such a file to another reader, which compiles the code in it.
        if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist()):
            raise ValueError("a TorchScript archive")
    reader = SimpleNamespace(__name__="kd_plugins.extractors.inert_pickle", Unpickler=InertUnpickler, load=None)
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=reader)
