"""Networks out of a user's own code: a .py file, or an importable module.

Forks of BasicSR are themselves called `basicsr` and cannot be installed beside it: their class files can be used all the same.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from os import path as osp
from pathlib import Path
from types import ModuleType

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from kd_plugins._compat import tolerant_registry
from kd_plugins.home import expand


def find_file(file: str) -> Path:
    """The full path of a .py file.

    Raises:
        FileNotFoundError: no such file.
    """
    path = expand(file).resolve()
    if path.suffix != ".py" or not osp.isfile(path):
        raise FileNotFoundError(f"file: {file!r} is no .py file (looked from {Path.cwd()})")
    return path


def import_file(file: str) -> ModuleType:
    """Import a .py file, once for a process.

    The file may import its neighbours (`from .arch_util import ...`) and register its classes with BasicSR; a name that is taken
    stays with the class that has it.

    Args:
        file: path of the file.

    Returns:
        The module.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be imported.
    """
    path = find_file(file)
    package = f"kd_plugins_files_{hashlib.sha1(str(path.parent).encode()).hexdigest()[:12]}"
    name = f"{package}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    folder = sys.modules.setdefault(package, ModuleType(package))  # its package: the folder, whose __init__.py is not run
    folder.__path__ = [str(path.parent)]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with tolerant_registry(ARCH_REGISTRY):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"file: {file} cannot be imported: {type(error).__name__}: {error}{_hint(error)}") from error
    return module


def _hint(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("basicsr."):
        return ". That is a part of its fork, not of BasicSR: copy it beside the file, and write `from .NAME import ...`"
    return ""


def import_module(name: str) -> ModuleType:
    """Import an installed module; what it registers under a name that is taken does not replace what has it.

    Raises:
        ValueError: the module cannot be imported.
    """
    try:
        with tolerant_registry(ARCH_REGISTRY):
            return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"module {name!r} cannot be imported: {error} (for a file of your own: `file: FILE.py, class: NAME`)"
        ) from error


def networks_of(module: ModuleType) -> dict[str, type[nn.Module]]:
    """The classes of a module that are networks, or parts of some, by name."""
    return {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)}
