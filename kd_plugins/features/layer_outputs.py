"""Record what the layers of a network return in one pass over a small image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugins.features.taps import refuse_untappable

# twice as wide as high: a square attention matrix, or channels in the last dimension, then do not look like a map; the others are
# for networks with windows of 6, 7 or 12, or for squares only
_SIZES = ((64, 128), (48, 96), (56, 112), (128, 128))


@dataclass(eq=False)
class Run:
    """One call of a module.

    Attributes:
        name: as in `net.named_modules()`.
        module: the module.
        shape: (1, C, H, W) where it returned one map, else None.
        returned: its output in words.
        area: positions of its output: H * W, or L of tokens (1, L, C); None for anything else.
        given: positions of its input, likewise.
        passes: it returned what it was given: an empty container, say.
        forwards: what it returned is what its last inner module returned.
        calls: how often the module was called in the pass.
        inner: the calls made inside of it.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...] | None = None
    returned: str = ""
    area: int | None = None
    given: int | None = None
    passes: bool = False
    forwards: bool = False
    calls: int = 1
    inner: list[Run] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The name of the module's class."""
        return type(self.module).__name__

    def walk(self) -> Iterator[Run]:
        """The calls inside it, then itself, in the order in which they ended."""
        for run in self.inner:
            yield from run.walk()
        yield self


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Run a network in eval mode without gradient, then restore the mode of each module: parts of it may be frozen."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def example_channels(net: nn.Module) -> list[int]:
    """The numbers of channels that the network's input may have, the likeliest first."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    count = first.in_channels if first else 3
    # a noise level beside the image, pixels unshuffled into channels, or several images
    return [count] if count in (1, 3) else [3, 1, count]


def example_images(net: nn.Module, height: int, width: int, device: torch.device) -> list[Tensor]:
    """Random images (1, C, height, width) with these numbers of channels, the likeliest first."""
    # its own generator: looking at a network leaves the run's random numbers as they are
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, count, height, width, generator=generator).to(device) for count in example_channels(net)]


def measure(net: nn.Module) -> Run:
    """Run a network once on a small image, in eval mode and without gradient, and record what its modules return.

    Args:
        net: the network, unwrapped. Its modes stay as they are, and taps on it hear nothing.

    Returns:
        The network's own call, with all the others inside. Its `given` is the image's size after a padding by `pad_to`.

    Raises:
        ValueError: the network is a program or an ensemble, or it takes none of the images.
    """
    refuse_untappable(net)
    parameter = next(net.parameters(), torch.zeros(()))
    error = None
    for size in _SIZES:
        for image in example_images(net, *size, parameter.device):
            try:
                return _Recorder(net).record(image.to(parameter.dtype))
            except Exception as failed:  # what a network says of an image that it does not take is its own affair
                error = error or failed
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    sizes = ", ".join(f"{height}x{width}" for height, width in _SIZES)
    raise ValueError(
        f"features: {type(net).__name__} takes no image of {sizes} ({reason}), so its layers cannot be measured; where it is the "
        "size, `pad_to: 8` (or 16, 32, 64) in its block pads it"
    )


class _Recorder:
    """Hooks on every module of a network, for one pass."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.top = Run("", net)
        self.open: list[tuple[Run, Any]] = []  # calls that have not ended, each with what its last inner module returned
        self.calls: dict[str, list[Run]] = {}
        self.ratio = 1.0

    def record(self, image: Tensor) -> Run:
        handles = []
        try:
            for name, module in self.net.named_modules():
                handles.append(module.register_forward_pre_hook(self._enter(name)))
                handles.append(module.register_forward_hook(self._leave))
            with evaluating(self.net):
                self.net(image)
        finally:
            for handle in handles:
                handle.remove()
        for runs in self.calls.values():
            for run in runs:
                run.calls = len(runs)
        return self.top

    def _enter(self, name: str):
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not name:  # the last hook of the network: the image as its forward gets it, padded
                height, width = args[0].shape[-2:]
                self.ratio, run = height / width, self.top
            else:
                run = Run(name, module)
                self.open[-1][0].inner.append(run)
                self.calls.setdefault(name, []).append(run)
            run.given = self._area(args[0]) if args else None
            self.open.append((run, None))

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        run, last = self.open.pop()
        run.area = self._area(output)
        run.shape = tuple(output.shape) if self._is_map(output) else None
        run.returned = str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
        run.passes = bool(args) and output is args[0]
        run.forwards = output is last
        if self.open:
            self.open[-1] = self.open[-1][0], output

    def _is_map(self, x: Any) -> bool:
        if not isinstance(x, Tensor) or x.dim() != 4 or len(x) != 1 or min(x.shape[-2:]) < 2:
            return False
        return 0.7 < x.shape[-2] / x.shape[-1] / self.ratio < 1.4  # not exact: networks pad by themselves

    def _area(self, x: Any) -> int | None:
        if self._is_map(x):
            return x.shape[-2] * x.shape[-1]
        tokens = isinstance(x, Tensor) and x.dim() == 3 and len(x) == 1
        return x.shape[1] if tokens else None
