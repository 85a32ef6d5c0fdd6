"""What the image metrics share: reading a batch, gray as OpenCV makes it, and filtering of large single maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.extractors.nss import WINDOW, as_float, full_precision, gaussian_window

# BT.601 in OpenCV's 14-bit integers: R 4899, G 9617, B 1868.
_LUMA = (4899 / 16384, 9617 / 16384, 1868 / 16384)


def round_through(x: Tensor) -> Tensor:
    """Round to integers; the gradient passes as if it had not been rounded (straight through)."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def to_gray(name: str, x: Tensor) -> Tensor:
    """A batch of images as 8-bit gray, as published quality metrics take it.

    Args:
        name: The caller's name, for the message.
        x: Images (N, 1 or 3, H, W), RGB, in [0, 1], any floating dtype.

    Returns:
        (N, 1, H, W) in whole numbers 0..255, float32 (float64 stays); rounded straight through.

    Raises:
        ValueError: x is of another shape or type, empty, or not finite.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or x.numel() == 0:
        raise ValueError(
            f"{name}: expected images (N, 1 or 3, H, W) of floating-point values in [0, 1], got {x.dtype} {tuple(x.shape)}."
        )
    x = as_float(x)
    if not bool(torch.isfinite(x.detach().sum())):
        raise ValueError(f"{name}: the images hold values that are not finite.")
    if x.shape[1] == 1:
        return round_through(x * 255)
    luma = x.new_tensor(_LUMA).mul_(255).view(1, 1, 3)
    return round_through(torch.matmul(luma, x.flatten(2)).view(x.shape[0], 1, *x.shape[2:]))


def gaussian_filter_image(x: Tensor) -> Tensor:
    """Filter images (N, 1, H, W) with the 7x7 Gaussian of BRISQUE, borders replicated.

    Seven shifted additions a direction: on a CPU 10 times faster than a convolution of one channel, forward and
    backward (docs/extractors.md).
    """
    taps = gaussian_window().tolist()
    half = WINDOW // 2
    for dim, pad in ((-2, (0, 0, half, half)), (-1, (half, half, 0, 0))):
        length = x.shape[dim]
        padded = F.pad(x, pad, mode="replicate")
        x = (padded.narrow(dim, 0, length) + padded.narrow(dim, WINDOW - 1, length)).mul_(taps[0])
        for tap in range(1, half):
            x.add_(padded.narrow(dim, tap, length) + padded.narrow(dim, WINDOW - 1 - tap, length), alpha=taps[tap])
        x.add_(padded.narrow(dim, half, length), alpha=taps[half])
    return x


def mscn_image(x: Tensor, centre: float = 128.0) -> Tensor:
    """MSCN of gray images in 0..255, C = 1, as published.

    Args:
        x: (N, 1, H, W).
        centre: Taken off first: it changes nothing but the rounding error of G*x² - mu², which it makes smaller.

    Returns:
        (N, 1, H, W).
    """
    x = x - centre
    mu = gaussian_filter_image(x)
    variance = gaussian_filter_image(x * x).sub_(mu * mu)
    # Below the floor a neighbourhood is constant up to rounding: the root needs no gradient there, and gets none.
    return (x - mu) / (variance.clamp_min(_FLAT).sqrt() + 1)


# Two neighbouring 8-bit grays differ by 1, and the least tap of the window is 1.6e-4: a variance below is rounding.
_FLAT = 1e-6


def each_image(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply to one image after another on a CPU (it stays in the cache), to all at once elsewhere."""
    with full_precision(x):
        if x.device.type != "cpu" or x.shape[0] == 1:
            return function(x)
        return torch.cat([function(image) for image in x.split(1)])
