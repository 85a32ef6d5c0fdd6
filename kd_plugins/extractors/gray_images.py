"""What the image metrics share: reading a batch, gray as OpenCV makes it, and filtering of large single maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.extractors.nss import WINDOW, as_float, full_precision, gaussian_window

# BT.601 in OpenCV's 14-bit integers: R 4899, G 9617, B 1868.
_LUMA = (4899 / 16384, 9617 / 16384, 1868 / 16384)
# Two neighbouring 8-bit grays differ by 1, and the least tap of the window is 1.6e-4: a variance below is rounding.
_FLAT = 1e-6
# Rounding may move a mean of up to 128 by 2e-5. A value within is equal to its mean, and must have no sign: BRISQUE counts them.
_EQUAL = 3e-5
# Columns and rows that a window adds to an image; samples filtered by one row of a matrix product.
MARGIN, _BLOCK = WINDOW - 1, 16


def round_through(x: Tensor) -> Tensor:
    """Round to integers; the gradient passes as if it had not been rounded (straight through)."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def to_gray(name: str, x: Tensor) -> Tensor:
    """A batch of images as 8-bit gray, as published quality metrics take it.

    Args:
        name: The caller's name, for the message.
        x: Images (N, 1 or 3, H, W), RGB, in [0, 1], any floating dtype.

    Returns:
        (N, 1, H, W) in whole numbers 0..255, float32 (float64 stays); rounded straight through. What is not finite stays so: a
        training step says it, and is skipped.

    Raises:
        ValueError: x is of another shape or type, or empty.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or x.numel() == 0:
        raise ValueError(
            f"{name}: expected images (N, 1 or 3, H, W) of floating-point values in [0, 1], got {x.dtype} {tuple(x.shape)}."
        )
    x = as_float(x)
    luma = x.new_tensor(_LUMA if x.shape[1] == 3 else (1.0,)).mul_(255).view(1, 1, -1)
    gray = torch.matmul(luma, x.flatten(2)).view(x.shape[0], 1, *x.shape[2:])
    return round_through(gray)


@lru_cache(maxsize=8)
def _band(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The Gaussian window as a matrix (_BLOCK + 6, _BLOCK): column j holds it from row j on."""
    band = torch.zeros(_BLOCK + MARGIN, _BLOCK, dtype=torch.float64)
    for tap, value in enumerate(gaussian_window().tolist()):
        band.diagonal(-tap).fill_(value)
    return band.to(device=device, dtype=dtype)


def _filter(padded: Tensor) -> Tensor:
    """Filter with the 7x7 Gaussian of BRISQUE, by narrow products of matrices.

    On a CPU some 3 times faster than shifted additions, and these 10 times faster than a convolution of one channel.

    Args:
        padded: (N, 1, k * _BLOCK, W + 6), whose windows begin at the positions of the output.

    Returns:
        (N, 1, k * _BLOCK, W + 6), the last six rows and columns without meaning.
    """
    head, tail = _band(padded.dtype, padded.device).split((_BLOCK, MARGIN))
    # The end of a block's windows lies in the next block. What crosses from an image to the next has no meaning.
    rows = padded.view(-1, _BLOCK, padded.shape[-1])
    out = torch.matmul(head.t(), rows)
    out[:-1].baddbmm_(tail.t().expand(len(rows) - 1, -1, -1), rows[1:, :MARGIN])
    # Along the rows, all of them are one line: neither have windows that go beyond a row's end.
    line = out.view(-1, _BLOCK)
    out = torch.matmul(line, head)
    out[:-1].addmm_(line[1:, :MARGIN], tail)
    return out.view(padded.shape[0], 1, -1, padded.shape[-1])


def mscn_image(x: Tensor, centre: float = 128.0) -> Tensor:
    """MSCN of gray images in 0..255, C = 1, as published; borders replicated.

    Args:
        x: (N, 1, H, W).
        centre: Taken off first: it changes nothing but the rounding error of G*x² - mu², which it makes smaller.

    Returns:
        (N, 1, H, W + MARGIN), contiguous for one image; zeros in the last columns.
    """
    height, width = x.shape[-2:]
    half, wide = MARGIN // 2, width + MARGIN
    padded = F.pad(x, (half, half, half, half + -(height + MARGIN) % _BLOCK), mode="replicate").sub_(centre)
    start = half * wide + half
    values = padded.flatten(1)[:, start : start + height * wide].view(-1, 1, height, wide)
    mu = _filter(padded)[..., :height, :]
    variance = _filter(padded.square())[..., :height, :].addcmul_(mu, mu, value=-1)
    # Below the floor a neighbourhood is constant up to rounding: the root needs no gradient there, and gets none.
    mscn = F.hardshrink(values - mu, _EQUAL) / (variance.clamp_min(_FLAT).sqrt() + 1)
    mscn[..., width:] = 0
    return mscn


def each_image(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply to one image after another on a CPU (it stays in the cache), to all at once elsewhere."""
    with full_precision(x):
        if x.device.type != "cpu" or x.shape[0] == 1:
            return function(x)
        return torch.cat([function(image) for image in x.split(1)])
