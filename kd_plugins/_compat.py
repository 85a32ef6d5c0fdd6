"""Every repair that basicsr 1.4.2 and torchvision need on today's PyTorch, one function each.

Nothing else in this package patches a library. Each repair looks first whether it is needed and does nothing otherwise.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TORCHVISION_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_LIBRARIES: list[torch.library.Library] = []  # a definition lives only as long as its Library object


def define_torchvision_operators() -> None:
    """Let `import torchvision` work where its compiled extension does not load.

    torchvision/_meta_registrations.py registers shape functions for `torchvision::nms` and `torchvision::qnms` without
    looking whether the operators exist: a torch whose build differs from torchvision's then cannot import it.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _TORCHVISION_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _LIBRARIES.append(library)
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]  # what the failed import left half-made
    importlib.import_module("torchvision")


def restore_functional_tensor() -> None:
    """Give back `torchvision.transforms.functional_tensor`, removed in torchvision 0.17.

    basicsr/data/degradations.py line 8 imports `rgb_to_grayscale` from it.
    """
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms import functional

    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # find_spec refuses a loaded module without one
    module.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = module


class _FirstStays(dict):
    """A registry's map in which a name that is taken keeps its object."""

    def __contains__(self, name: object) -> bool:
        return False

    def __setitem__(self, name: Any, value: Any) -> None:
        self.setdefault(name, value)


@contextmanager
def tolerant_registry(registry: Any) -> Iterator[None]:
    """While code of others is imported: registering a name that is taken does nothing.

    basicsr/utils/registry.py line 42 asserts that the name is free; the class files of BasicSR's forks register names that BasicSR
    itself, or another fork's file, has already.
    """
    names = registry._obj_map
    registry._obj_map = _FirstStays(names)
    try:
        yield
    finally:
        names.update(registry._obj_map)
        registry._obj_map = names


def require_basicsr() -> None:
    """Say in one sentence how to install basicsr where it is missing.

    Raises:
        ImportError: basicsr is not installed.
    """
    if importlib.util.find_spec("basicsr") is None:
        raise ImportError(
            "kd_plugins is a plugin for BasicSR, which is not installed: "
            "pip install --no-build-isolation --no-deps basicsr==1.4.2 (after torch; see README.md, Installation)"
        )


def apply() -> None:
    """Run every repair. Called once, by `import kd_plugins`."""
    require_basicsr()
    define_torchvision_operators()
    restore_functional_tensor()
