"""Exported files as networks: .onnx, .pt, .pt2 and .xml, each through the library that runs it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_plugins.deploy.onnx_network import INSTALL, OnnxNetwork
from kd_plugins.messages import choose

FORMS = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pt2": "torch.export",
    ".xml": "openvino",
    ".safetensors": "weights",
    ".pth": "weights",
}
"""What a file holds, by how its name ends."""


def form_of(path: Path) -> str:
    """The form of a file, by its name.

    Raises:
        ValueError: a name that ends otherwise.
    """
    if path.suffix.lower() not in FORMS:
        raise ValueError(f"{path}: expected a name that ends in one of {', '.join(FORMS)}; {choose(path.suffix, FORMS)}")
    return FORMS[path.suffix.lower()]


def load_exported(path: Path) -> Callable[[Tensor], Tensor]:
    """What an exported file makes of images (N, C, H, W) in [0, 1], on the CPU.

    A TorchScript or torch.export file runs code of whoever made it: load what you trust.

    Args:
        path: the file; beside an .xml lies its .bin.

    Raises:
        ValueError: its library is not installed or cannot load it; no exported form.
    """
    form = form_of(path)
    if form == "onnx":
        return OnnxNetwork(path, torch.device("cpu"))
    if form == "weights":
        raise ValueError(f"{path}: holds weights, expected an exported file")
    if form == "openvino":
        import_openvino()
    try:
        return _LOADERS[form](path)
    except Exception as error:  # each library raises types of its own
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ValueError(f"{path}: cannot be loaded as {form}: {reason.partition('. ')[0][:200]}") from error


def is_torchscript(path: Path) -> bool:
    """Whether a .pt file is a program; people name weights so, too."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/constants.pkl") for name in file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def import_openvino() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError(f"openvino is not installed: {INSTALL}") from error
    return openvino


def _openvino(path: Path) -> Callable[[Tensor], Tensor]:
    # some processors would compute in bf16
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = import_openvino().Core().compile_model(str(path), "CPU", settings)
    return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())


_LOADERS: dict[str, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "openvino": _openvino,
    "torchscript": lambda path: torch.jit.load(path, map_location="cpu"),
    "torch.export": lambda path: torch.export.load(path).module(),
}
