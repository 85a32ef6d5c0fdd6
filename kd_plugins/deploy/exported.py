"""Exported files as networks: .onnx, .pt, .pt2 and .xml, each through the library that runs it."""

from __future__ import annotations

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
    if form == "openvino":
        return _openvino(path)
    if form == "torchscript":
        return torch.jit.load(path, map_location="cpu")
    if form == "torch.export":
        return torch.export.load(path).module()
    raise ValueError(f"{path}: holds weights, expected an exported file")


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
