"""A model in each form in which it can run: as it is, compiled, in another memory layout or precision, exported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_plugins.deploy.exported import FORMS, is_torchscript, load_exported
from kd_plugins.deploy.model import find_device, load_model, source_block
from kd_plugins.deploy.onnx_network import OnnxNetwork
from kd_plugins.home import expand

_TRIED = (64, 72)  # the size of the image that tells the channels of an exported file


class Variant(NamedTuple):
    """A model, and how it is run.

    Attributes:
        source: see `load_model`; or an exported file, .onnx, .pt, .pt2 or .xml, which runs as it is. One of PyTorch's can run
            code of whoever made it.
        device: see `find_device`.
        precision: fp32, bf16 or fp16 (autocast).
        channels_last: in that memory layout.
        compiled: by torch.compile.
    """

    source: str
    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False

    @property
    def exported(self) -> str:
        """What an exported file is: 'onnx', 'torchscript', ...; nothing for other sources."""
        path = expand(self.source)
        kind = "weights" if self.source.lstrip().startswith("{") else FORMS.get(path.suffix.lower(), "weights")
        holds_weights = kind == "weights" or (kind == "torchscript" and path.is_file() and not is_torchscript(path))
        return "" if holds_weights else kind

    @property
    def form(self) -> str:
        """In words: 'eager', 'compiled, channels_last, bf16', 'onnx'."""
        extras = ["channels_last"] * self.channels_last + [self.precision] * (self.precision != "fp32")
        return self.exported or ", ".join(["compiled" if self.compiled else "eager", *extras])

    def load(self) -> Loaded:
        """Load it.

        Raises:
            ValueError: see `load_model`, `load_exported`.
        """
        device = find_device(self.device)
        if self.exported:
            if device.type != "cpu":
                raise ValueError(f"{self.source}: an exported file is run on the CPU, expected --device cpu")
            path = expand(self.source)
            if not path.is_file():
                raise ValueError(f"model: {self.source!r} is no file (looked from {Path.cwd()})")
            run = load_exported(path)
            precision = run.facts.get("precision", "fp32") if isinstance(run, OnnxNetwork) else "fp32"
            return Loaded(path.name, run, device, channels=_channels(run), precision=precision)
        model = load_model(self.source, self.device, self.precision)
        net = model.net
        if self.channels_last and net is not None:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compiled:
            model.run = torch.compile(model.run)  # type: ignore[assignment]
        return Loaded(model.name, model, device, net, model.channels, self.channels_last)


class Loaded(NamedTuple):
    """A variant that can be run.

    Attributes:
        name: of the model.
        run: an image (1, C, H, W) in, the restored one out.
        device: where.
        net: the network, if PyTorch runs it.
        channels: of the image.
        channels_last: whether its image is in that memory layout.
        precision: of an exported file that says it.
    """

    name: str
    run: Callable[[Tensor], Any]
    device: torch.device
    net: nn.Module | None = None
    channels: int = 3
    channels_last: bool = False
    precision: str = "fp32"

    def example(self, height: int, width: int) -> Tensor:
        """A random image, always the same."""
        x = torch.rand(1, self.channels, height, width, generator=torch.Generator().manual_seed(0)).to(self.device)
        return x.to(memory_format=torch.channels_last) if self.channels_last else x


def variants(
    sources: Sequence[str], device: str, precisions: Sequence[str] = (), channels_last: bool = False, compiled: bool = False
) -> list[Variant]:
    """The forms of models that are compared: each as it is, and what is asked for beside it.

    Args:
        sources: of `Variant`, like device.
        device: likewise.
        precisions: beside fp32.
        channels_last: also in that memory layout.
        compiled: also compiled.
    """
    found = []
    for source in sources:
        if (plain := Variant(source, device)).exported:
            found.append(plain)
            continue
        forms = product((False, True)[: 1 + compiled], (False, True)[: 1 + channels_last], ("fp32", *precisions))
        found += [Variant(source, device, precision, last, first) for first, last, precision in forms]
    return found


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Names of models by their source: those of one name become the shortest ends of their paths that differ, else the sources."""
    paths = {source: Path(str(source_block(source).get("checkpoint", source))).parts for source in names}
    found = dict(names)
    for source, path in paths.items():
        others = [paths[other] for other, name in names.items() if name == names[source] and other != source]
        if others:
            ends = (path[-count:] for count in range(1, len(path) + 1))
            differing = (end for end in ends if all(end != other[-len(end) :] for other in others))
            found[source] = "/".join(next(differing, (source,)))
    return found


def _channels(run: Callable[[Tensor], Any]) -> int:
    """Of the images that an exported network takes, 3 or 1."""
    if isinstance(run, OnnxNetwork):
        return run.channels
    for count in (3, 1):
        with contextlib.suppress(Exception):  # each library raises types of its own
            run(torch.full((1, count, *_TRIED), 0.5))
            return count
    return 3
