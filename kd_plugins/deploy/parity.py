"""Whether an exported network makes the images that PyTorch makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SIZES = ((481, 321), (100, 130), (64, 64))
"""Height and width of the images that are compared: two that most networks pad, one that they do not."""
LEAST_PSNR = {"fp32": 80.0, "fp16": 50.0}
"""In dB; below it an export is refused. Single precision has 120 to 160, half precision 60 to 100; a wrong graph has below 50."""


class Difference(NamedTuple):
    """How far two networks' images of one size are apart; both in units of [0, 1], or of the larger range that an image has."""

    size: tuple[int, int]
    largest: float
    psnr: float

    def __str__(self) -> str:
        apart = f"largest difference {self.largest:.1e}, PSNR {self.psnr:.1f} dB" if self.largest else "the same bits"
        return f"{self.size[0]}x{self.size[1]}: {apart}"


def compare(
    run: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor],
    channels: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> list[Difference]:
    """Compare what two networks make of the same images.

    Args:
        run: the exported network.
        reference: the one that it was made of.
        channels: of the images.
        sizes: height and width of each.

    Raises:
        ValueError: one makes an image of another size, or takes none.
    """
    found = []
    for size in sizes:
        x = example_image(channels, *size)
        with torch.no_grad():
            expected = reference(x)
            try:
                seen = run(x)
            except Exception as error:  # onnxruntime, openvino and PyTorch raise types of their own
                raise ValueError(f"does not take an image of {size[0]}x{size[1]}: {_first_line(error)}") from error
        if seen.shape != expected.shape:
            raise ValueError(f"makes {tuple(seen.shape)} of {tuple(x.shape)}, expected {tuple(expected.shape)}")
        found.append(Difference(size, *_apart(seen, expected)))
    return found


def refuse_below(found: Sequence[Difference], least: float) -> None:
    """Refuse what is not near enough.

    Raises:
        ValueError: a PSNR is below `least`, in dB, or no number.
    """
    for difference in found:
        if not difference.psnr >= least:
            raise ValueError(f"differs from PyTorch at {difference}, expected at least {least:g} dB")


def example_image(channels: int, height: int, width: int) -> Tensor:
    """An image (1, channels, height, width) in [0, 1] with smooth parts and fine ones, always the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, height // 16 + 2, width // 16 + 2, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def psnr(mse: float) -> float:
    """In dB, of images in [0, 1]."""
    return -10 * math.log10(mse) if mse > 0 else math.inf if mse == 0 else math.nan


def _apart(seen: Tensor, expected: Tensor) -> tuple[float, float]:
    peak = max(1.0, expected.abs().max().item())
    error = (seen.double() - expected.double()) / peak
    return error.abs().max().item(), psnr(error.square().mean().item())


class HalfAsOnGpu(TorchDispatchMode):
    """Half precision as graphics cards have it, at a CPU's speed in single precision: each result is rounded, sums are not.

    A CPU takes up to 100 times as long in half precision, and programs that run .onnx files there compute in single precision: what
    is too large for half precision would show on the graphics card only.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = func._schema.returns
        as_it_is = not results or any(result.alias_info is not None for result in results) or "dtype" in kwargs
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.is_floating_point()]
        if as_it_is or not tensors or any(x.dtype is not torch.float16 for x in tensors):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, lambda x: x.float() if x.dtype is torch.float16 else x, (args, kwargs))
        return tree_map_only(Tensor, lambda x: x.half() if x.dtype is torch.float32 else x, func(*args, **kwargs))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
