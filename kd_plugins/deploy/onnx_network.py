"""An .onnx file as a network, through onnxruntime. Imported where it is asked for: it is an extra."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kd_plugins.archs.adapter import pad

INSTALL = "pip install kd_plugins[export]"
FACTS = {"range", "order"}
"""What our own files say of their images, see `describe_export`: from 0 to 1, RGB or gray."""
_SMALL = (64, 64)
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class OnnxNetwork(nn.Module):
    """What onnxruntime makes of a file that maps an image to an image.

    Args:
        path: the file.
        device: where it runs; onnxruntime has to be built for it.

    Attributes:
        channels: of the image.
        facts: what the file says of itself, see `describe_export`; a foreign one says what it likes.
        size: height and width, where the file takes one size only; smaller images are padded to it.

    Raises:
        ValueError: no such file; onnxruntime is not installed, or cannot run the file on the device; not one image in and one out.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        self.path = path
        if not path.is_file():
            raise ValueError(f"model: {str(path)!r} is no file (looked from {Path.cwd()})")
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f"model: {path} needs onnxruntime, which is not installed: {INSTALL}") from error
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type, device.type)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(f"device: {str(device)!r}, but onnxruntime has no {provider} here, expected cpu (or onnxruntime-gpu)")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised, too
        place = (provider, {"device_id": str(device.index or 0)}) if device.type == "cuda" else provider
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[place])
        except Exception as error:  # onnxruntime raises types of its own
            raise ValueError(f"model: {path} cannot be loaded by onnxruntime: {_first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise ValueError(f"model: {path} takes {found}, expected one image (N, C, H, W) of floats")
        if len(outputs) != 1:
            raise ValueError(f"model: {path} returns {', '.join(each.name for each in outputs)}, expected one image")
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        _, channels, height, width = inputs[0].shape
        self.facts = dict(self._session.get_modelmeta().custom_metadata_map)
        self.channels = channels if isinstance(channels, int) else 3
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def forward(self, x: Tensor) -> Tensor:
        """What the file makes of (N, C, H, W), sample by sample: many files take a batch of one only.

        Raises:
            ValueError: it does not take a batch of this shape.
        """
        height, width = x.shape[-2:]
        high, wide = self.size or (height, width)
        if height > high or width > wide:
            raise ValueError(
                f"model: {self.path.name} takes images of {high}x{wide} only, not {height}x{width}; expected smaller ones"
            )
        padded = pad(x.detach().cpu().to(self._type), high - height, wide - width)
        images = []
        for sample in padded:
            try:
                images.append(torch.from_numpy(self._session.run(None, {self._input: sample[None].numpy()})[0]))
            except Exception as error:  # onnxruntime raises types of its own
                shape = tuple(sample[None].shape)
                raise ValueError(
                    f"model: {self.path.name} does not take an image of shape {shape} ({_first_line(error)})"
                ) from error
        restored = torch.cat(images).to(x.device)
        if self.size is None:
            return restored
        scale = restored.shape[-2] // high
        if restored.shape[-2:] != (scale * high, scale * wide):
            return restored  # no whole number of times its size: nothing that padding could be cut off from
        return restored[..., : scale * height, : scale * width]

    def release_memory(self) -> None:
        """Give back the memory that onnxruntime keeps for the next image."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        device = "gpu" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"{device}:0")
        height, width = self.size or _SMALL
        self._session.run(None, {self._input: torch.zeros(1, self.channels, height, width, dtype=self._type).numpy()}, options)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
