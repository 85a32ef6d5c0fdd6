"""A model that restores: a network with its weights wherever it comes from, or an exported file, on a device, in a precision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from kd_plugins.archs.adapter import Adapter
from kd_plugins.arguments import build
from kd_plugins.deploy.onnx_network import FACTS, OnnxNetwork
from kd_plugins.deploy.values import refuse_other_values
from kd_plugins.features.layer_outputs import example_channels
from kd_plugins.home import expand
from kd_plugins.messages import nearest
from kd_plugins.teachers.network import build_trained
from kd_plugins.teachers.network_keys import ADAPTER_KEYS, ENSEMBLE, registered_keys
from kd_plugins.teachers.teacher import Teacher
from kd_plugins.yaml_loader import Loader

KEY = "model"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIDES = (64, 72)  # of the image that tells channels and scale


class Model:
    """A network as a user runs it: images in, restored images out.

    Args:
        run: the network, or an exported one; in eval mode, on the device; takes any size.
        name: for file names and messages.
        device: where it runs.
        precision: a key of `PRECISIONS`; with the halves, PyTorch's autocast decides which operations run in them. An .onnx file
            has its own, int8 perhaps.
        block: of the network, as `teacher` takes it, where it is known.

    Attributes:
        net: the network; None for an .onnx file.
        channels: of the images that it takes and returns, 1 or 3.
        scale: height and width of a restored image over those of the given one.

    Raises:
        ValueError: it takes no image of 3 channels or 1, or does not make one of it that is a whole number of times its size.
    """

    def __init__(
        self, run: nn.Module, name: str, device: torch.device, precision: str = "fp32", block: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self.device, self.precision, self.block = name, device, precision, block or {}
        self.channels, self.scale = _look(run, device)
        self.run = run
        self.net = run
        if isinstance(run, OnnxNetwork):
            self.net, self.precision = None, run.facts.get("precision", precision)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the only image that an exported file takes (smaller ones are padded); None for any size."""
        return self.run.size if isinstance(self.run, OnnxNetwork) else None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Restore a batch.

        Args:
            x: (N, C, H, W) in [0, 1], C 1 or 3, on the device. A network of one channel restores each of three by itself; to a
                network of three a gray image is shown three times, and the mean of what it makes of it is taken.

        Returns:
            (N, C, scale * H, scale * W) in float32, about [0, 1]: not clipped.
        """
        count = x.shape[1]
        if count != self.channels:
            x = x.flatten(0, 1)[:, None] if self.channels == 1 else x.expand(-1, self.channels, -1, -1)
        with self._autocast():
            restored = self.run(x).float()
        if count == self.channels:
            return restored
        return restored[:, 0].unflatten(0, (-1, count)) if self.channels == 1 else restored.mean(1, keepdim=True)

    def release_memory(self) -> None:
        """Give back what is kept from image to image, where onnxruntime keeps it."""
        if isinstance(self.run, OnnxNetwork):
            self.run.release_memory()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.net is None or self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])


def load_model(source: str | Mapping[str, Any], device: str = "cpu", precision: str = "fp32") -> Model:
    """Load a model to restore images with.

    Args:
        source: the file of a student, or of any network that a `teacher` can be; the name of a bundled one; an .onnx file; or a
            block as `teacher` takes it, which can be written as YAML: '{type: DRUNet, in_nc: 4, out_nc: 3, ...}'.
        device: cpu, cuda, cuda:1, mps, or auto: a GPU where there is one.
        precision: fp32, bf16 or fp16.

    Returns:
        The model, tried on a small image.

    Raises:
        ValueError: see `build_source`; no such file, device or precision; a network that restores no images.
    """
    place = find_device(device)
    if precision not in PRECISIONS:
        raise ValueError(f"precision: {precision!r}, expected one of {', '.join(PRECISIONS)}")
    block = dict(source_block(source))
    name = Path(str(next((block[key] for key in ("checkpoint", *registered_keys(), "type") if block.get(key)), ENSEMBLE))).stem
    if str(block.get("checkpoint", "")).lower().endswith(".onnx"):
        return _load_onnx(block, name, place, precision)
    try:
        net = build_trained(block, KEY)
    except (FileNotFoundError, KeyError) as error:
        raise ValueError(error.args[0]) from error
    return Model(net.to(place), name, place, precision, block)


def _load_onnx(block: dict[str, Any], name: str, device: torch.device, precision: str) -> Model:
    path = expand(block.pop("checkpoint"))
    if precision != "fp32":
        raise ValueError(f"{KEY}: {path} runs in the precision that it was exported in, expected no {precision}")
    if unknown := next((key for key in block if key not in ADAPTER_KEYS), None):
        raise ValueError(f"{KEY}: {unknown}: {block[unknown]!r}, expected beside an .onnx file one of {', '.join(ADAPTER_KEYS)}")
    net = OnnxNetwork(path, device)
    if block:
        build(Adapter, block, (KEY,)).attach(net)
    model = Model(net, name, device)
    if not block and FACTS - net.facts.keys():
        refuse_other_values(net, model.channels, net.size, str(path))
    return model


def find_device(name: str) -> torch.device:
    """The device of a name; `auto` is a GPU where there is one.

    Raises:
        ValueError: PyTorch has no such device here.
    """
    cuda, mps = torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.backends.mps.is_available()
    here = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda)), *(["mps"] if mps else [])]
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if name not in here:
        raise ValueError(f"device: {name!r}, expected one of auto, {', '.join(here)}; nearest: {nearest(name, here)}")
    return torch.device(name)


def source_block(source: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's source as a block of an option file, see `load_model`.

    Raises:
        ValueError: it begins as a block in YAML does, and is none.
    """
    if isinstance(source, Mapping):
        return source
    if not source.lstrip().startswith("{"):
        return {"checkpoint": source}
    try:
        return yaml.load(source, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{KEY}: {source!r} is no YAML: {' '.join(str(error).split())}") from error


def _look(run: nn.Module, device: torch.device) -> tuple[int, int]:
    """The channels of a network's images, and its scale."""
    exported = isinstance(run, OnnxNetwork)
    counts = [run.channels] if exported else example_channels(run)
    height, width = (run.size if exported else None) or _SIDES
    teacher, refusal = Teacher(run, KEY), None
    for count in (count for count in counts if count in (1, 3)):
        x = torch.full((1, count, height, width), 0.5, device=device)
        teacher.fit_sizes(count)
        try:
            image = teacher.try_out(x).image
        except ValueError as error:
            refusal = refusal or error
            continue
        scale = image.shape[-1] // width
        if not scale or image.shape != (1, count, scale * height, scale * width):
            raise ValueError(
                f"{KEY}: makes {tuple(image.shape)} of an image of {tuple(x.shape)}, expected as many channels, and a whole number "
                "of times its height and width"
            )
        return count, scale
    raise refusal or ValueError(f"{KEY}: takes images of {counts[0]} channels, expected 3 or 1")
