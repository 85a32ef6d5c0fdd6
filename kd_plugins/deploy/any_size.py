"""A network as exported files hold it: images of any height and width, padded and cropped within the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kd_plugins.archs.adapter import Adapter, Sizes

_SIZES = ((67, 101), (131, 70))  # padded to multiples of a number, they have no larger common factor
_PADDING = {
    torch.ops.aten.constant_pad_nd.default: "constant",
    torch.ops.aten.reflection_pad2d.default: "reflect",
    torch.ops.aten.replication_pad2d.default: "replicate",
}


class Padding(NamedTuple):
    """How a network pads an image at its lower and right border before it does anything else."""

    sizes: Sizes = Sizes()
    mode: str = "reflect"
    value: float = 0.0


class AnySize(nn.Module):
    """A network of images of any size, without a branch on it: what exporters need.

    Networks pad behind an `if`, of which an exporter keeps one side. Here an image is padded, in the network's own way, before the
    network sees it, and cropped behind it; the network's own padding then has nothing left to do.

    Args:
        net: the network; takes (N, C, H, W) in [0, 1].
        padding: its own, see `find_padding`.
        channels: of its images.
        scale: height and width of its image over those of the given one.
        half: whether the network computes in half precision; images are in single precision on both sides.
    """

    def __init__(self, net: nn.Module, padding: Padding, channels: int, scale: int, half: bool = False) -> None:
        super().__init__()
        self.net, self.padding = net.half() if half else net, padding
        self.channels, self.scale, self.half_precision = channels, scale, half
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Restore (N, C, H, W) to (N, C, scale * H, scale * W)."""
        height, width = x.shape[-2:]
        padded = self.padding.sizes != Sizes()
        if padded:
            x = self._pad(x, *self._sides(height, width))
        y = self.net(x.half()).float() if self.half_precision else self.net(x)
        if padded:  # no slices: the exporter would ask whether they are contiguous, and tie the file to the answer
            y = y.index_select(-2, _indices(self.scale * height, x)).index_select(-1, _indices(self.scale * width, x))
        return y

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        multiple, minimum, square = self.padding.sizes
        # written so that the exporter sees a multiple of `multiple`
        sides = [(side + multiple - 1) // multiple * multiple for side in (height, width)]
        if minimum:
            sides = [_larger(side, -(-minimum // multiple) * multiple) for side in sides]
        return (_larger(*sides),) * 2 if square else (sides[0], sides[1])

    def _pad(self, x: Tensor, height: int, width: int) -> Tensor:
        if self.padding.mode == "constant":
            return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), value=self.padding.value)
        for dim, side in ((-2, height), (-1, width)):
            last, index = x.shape[dim] - 1, _indices(side, x)
            beyond = last - (index - last).abs() if self.padding.mode == "reflect" else index.clamp_max(last)
            x = x.index_select(dim, beyond.clamp_min(0))  # smaller than half the padded size: the first row, repeated
        return x


def _indices(count: int, x: Tensor) -> Tensor:
    return torch.arange(count, device=x.device)


def _larger(a: Any, b: Any) -> Any:
    """The larger side, as numbers, symbols, or (as torch.jit.trace has them) tensors."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.maximum(torch.as_tensor(a), torch.as_tensor(b))
    return torch.sym_max(a, b)


class _Paddings(TorchDispatchMode):
    """Notes what is padded, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...], tuple[int, ...], float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PADDING:
            value = float(args[2]) if len(args) > 2 else 0.0
            self.seen.append((_PADDING[func], tuple(args[0].shape[-2:]), tuple(args[1]), value))
        return func(*args, **(kwargs or {}))


def find_padding(net: nn.Module, channels: int) -> Padding:
    """How a network pads an image at its border: seen on images of two sizes.

    Args:
        net: the network, on the CPU, with the hooks that pad for it.
        channels: of its images.
    """
    seen = []
    for size in _SIZES:
        with torch.no_grad(), _Paddings() as found:
            net(torch.full((1, channels, *size), 0.5))
        # (left, right, top, bottom), or fewer of them; one that pads to a size leaves the upper left corner where it is
        amounts = [(mode, (*pad, 0, 0)[:4], value) for mode, before, pad, value in found.seen if before == size]
        seen.append([(mode, pad, value) for mode, pad, value in amounts if pad[0] == pad[2] == 0 and any(pad)])
    if not all(seen):
        return Padding()
    (mode, first, value), second = seen[0][0], seen[1][0][1]
    if first == second:
        return Padding()  # whatever the size
    padded = [(size[0] + pad[3], size[1] + pad[1]) for size, pad in zip(_SIZES, (first, second), strict=True)]
    sizes = next((hook.sizes for hook in map(_adapter, net._forward_pre_hooks.values()) if hook), Sizes())
    multiple = math.gcd(*padded[0], *padded[1])
    return Padding(Sizes(multiple, sizes.minimum, sizes.square), mode, value)


def _adapter(hook: Any) -> Adapter | None:
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, Adapter) else None


@contextmanager
def plain_functions() -> Iterator[None]:
    """Lets torch.jit.trace see into functions with a gradient of their own: it cannot save them (NAFNet's layer norm)."""

    def apply(cls: Any, *args: Any) -> Any:
        return cls.forward(_Context(), *args)

    before = torch.autograd.Function.__dict__.get("apply")
    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        if before is None:
            del torch.autograd.Function.apply
        else:
            torch.autograd.Function.apply = before  # type: ignore[method-assign]


class _Context:
    """What such a function writes for its gradient, which is not asked for."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep nothing."""
