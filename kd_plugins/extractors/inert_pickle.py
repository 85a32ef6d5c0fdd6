"""Reading what torch.save wrote without running the code that its pickle asks for."""

from __future__ import annotations

import pickle
import re
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from os import path as osp
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began a file: a pickle of its magic number


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


class PlainUnpickler(InertUnpickler):
    """As `InertUnpickler`, of what may stand beside weights: arguments, numbers, paths and times. It refuses all other names."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """As there.

        Raises:
            pickle.UnpicklingError: Something else.
        """
        names = _PLAIN.get(module_name, _PLAIN.get(module_name.partition(".")[0]))
        if (module_name, global_name) not in _ADMITTED and global_name not in (names or ()):
            raise pickle.UnpicklingError(_named(f"{module_name}.{global_name}"))
        return super().find_class(module_name, global_name)


_NUMPY = (
    "scalar",
    "dtype",
    "ndarray",
    "_reconstruct",
    *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)),
)
_BUILTINS = (
    "list",
    "dict",
    "tuple",
    "set",
    "frozenset",
    "int",
    "float",
    "complex",
    "str",
    "bytes",
    "bytearray",
    "bool",
    "slice",
    "range",
)
_PLAIN: dict[str, tuple[str, ...]] = {  # by module, or by package
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "collections": ("OrderedDict", "defaultdict", "Counter", "deque"),
    "pathlib": ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "numpy": _NUMPY,
    "builtins": (*_BUILTINS, "object"),
    "__builtin__": (*_BUILTINS, "object", "unicode", "long"),
    "_codecs": ("encode",),
    "copy_reg": ("_reconstructor",),
    "copyreg": ("_reconstructor",),
    "torch": (
        "Size",
        "device",
        *(str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)),
    ),
    "easydict": ("EasyDict",),
    "addict": ("Dict",),
    "yacs": ("CfgNode",),
    "mmengine": ("Config", "ConfigDict"),
    "omegaconf": ("DictConfig", "ListConfig", "ContainerMetadata", "Metadata", "AnyNode"),
    "typing": ("Any",),
    "pytorch_lightning": ("AttributeDict",),
    "lightning": ("AttributeDict",),
    "lightning_fabric": ("AttributeDict",),
}


def _named(name: str) -> str:
    return f"it names {name}, which is code"


def load_plain(path: Path, inert: bool = False) -> Any:
    """Read what torch.save wrote: tensors, numbers, texts, and lists and dicts of them.

    Args:
        path: The file.
        inert: Whether arguments of other kinds may stand beside them (`PlainUnpickler`); they are read as inert objects.

    Returns:
        What was saved; tensors on the CPU.

    Raises:
        ValueError: It is something else, or damaged; the message is what, in a few words that can be relied upon. PyTorch's own
            say how to read the file nonetheless, which runs its code.
    """
    if not osp.isfile(path):
        raise ValueError("it is no file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each kind of damage has its own
        text = str(error)
    foreign = re.search(r"\bGLOBAL (\S+)", text)
    if foreign and inert:
        try:
            return load_inert(path, PlainUnpickler)
        except Exception as error:
            text = str(error)
    elif foreign:
        text = _named(foreign[1])
    reason = (text.splitlines() or [""])[0]
    if not reason or "weights_only" in reason or "Weights only" in reason:
        reason = "it is no file of tensors, numbers and texts that torch.save wrote"
    raise ValueError(reason)


def load_inert(path: Path, unpickler: type[InertUnpickler] = InertUnpickler) -> Any:
    """Read a file that torch.save wrote, with all its foreign objects replaced by inert ones.

    Tensors are mapped, not read: of a gigabyte of optimizer state only what is used is ever fetched from the disk. Those of a file
    of before PyTorch 1.6, which is no zip, are read.

    Args:
        path: The file.
        unpickler: What reads its pickle.

    Returns:
        What was saved; tensors on the CPU.

    Raises:
        ValueError: It is another kind of file.
        pickle.UnpicklingError, RuntimeError: It is damaged.
    """
    # torch.load would hand the other files to other readers: one compiles the code in a TorchScript archive, one unpacks tar files.
    if is_zip := zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist()):
                raise ValueError("a TorchScript archive")
    else:
        with open(path, "rb") as file:
            if file.read(len(_BEFORE_ZIP)) != _BEFORE_ZIP or tarfile.is_tarfile(path):
                raise ValueError("no zip archive as torch.save writes it")

    def load(file: Any, **options: Any) -> Any:
        return unpickler(file, **options).load()

    reader = SimpleNamespace(__name__="kd_plugins.extractors.inert_pickle", Unpickler=unpickler, load=load)
    return torch.load(path, map_location="cpu", mmap=is_zip, weights_only=False, pickle_module=reader)
