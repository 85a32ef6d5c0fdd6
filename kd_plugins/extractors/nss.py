"""Natural scene statistics of many-channel features: filters, MSCN and its products, gradient magnitude.

The operators are those of BRISQUE (Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial
domain", TIP 2012), per channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_plugins import distributed

WINDOW = 7
SIGMA = 7 / 6
_SCHARR = (3 / 16, 10 / 16, 3 / 16)
_BORDER = (1, 1, 0, 1)  # left, right, above, below: where neighbours are missing


def gaussian_window(size: int = WINDOW, sigma: float = SIGMA, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normalised 1-D Gaussian window, shape (size,); the published BRISQUE uses 7 taps and sigma 7/6."""
    grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-grid.square() / (2 * sigma * sigma))
    return (window / window.sum()).to(dtype)


def as_float(x: Tensor) -> Tensor:
    """Contiguous float32; float64 stays float64."""
    return x.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()


@contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Keep operations on x's device out of autocast and TF32: E[x²] - E[x]² does not survive 10 bits."""
    precision = torch.get_float32_matmul_precision() if x.is_cuda else "highest"
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(x.device.type, enabled=False):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


@lru_cache(maxsize=256)
def _operator(kind: str, length: int, dtype: torch.dtype, device: torch.device, block: int = 2) -> Tensor:
    """A 1-D linear operator on `length` samples as a matrix, borders replicated.

    Measured on CPU, forward and backward: such a banded product beats depthwise convolution 2 to 4 times up to about
    200 samples, and needs no padding.
    """
    rows = torch.arange(length)
    if kind == "mean":  # of blocks; the last one may be smaller
        matrix = (rows // block == torch.arange(-(-length // block)).unsqueeze(1)).double()
        return (matrix / matrix.sum(1, keepdim=True)).to(device=device, dtype=dtype)
    taps = {"gauss": gaussian_window().tolist(), "smooth": list(_SCHARR), "slope": [-0.5, 0.0, 0.5]}[kind]
    matrix = torch.zeros(length, length, dtype=torch.float64)
    for tap, value in enumerate(taps):
        cols = (rows + tap - len(taps) // 2).clamp(0, length - 1)
        matrix.index_put_((rows, cols), torch.full((length,), value, dtype=torch.float64), accumulate=True)
    return matrix.to(device=device, dtype=dtype)


def _separable(x: Tensor, vertical: str, horizontal: str) -> Tensor:
    """Apply one operator along the columns and one along the rows of maps (..., H, W)."""
    rows = _operator(vertical, x.shape[-2], x.dtype, x.device)
    cols = _operator(horizontal, x.shape[-1], x.dtype, x.device)
    return torch.matmul(rows, torch.matmul(x, cols.t()))


def gaussian_filter(x: Tensor) -> Tensor:
    """Filter maps (..., H, W) with the 7x7 Gaussian of BRISQUE, borders replicated."""
    return _separable(x, "gauss", "gauss")


def block_mean(x: Tensor, height: int, width: int) -> Tensor:
    """Means of blocks that do not overlap, those at the right and bottom border perhaps smaller.

    Args:
        x: Maps (..., H, W).
        height: Of a block.
        width: Of a block.

    Returns:
        (..., ceil(H / height), ceil(W / width)).
    """
    rows = _operator("mean", x.shape[-2], x.dtype, x.device, height)
    cols = _operator("mean", x.shape[-1], x.dtype, x.device, width)
    return torch.matmul(rows, torch.matmul(x, cols.t()))


def mscn(x: Tensor, scale: Tensor | None = None, c: float = 0.2, eps: float = 1e-3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean-subtracted contrast-normalised maps, (x - mu) / (sigma + C), of a feature.

    mu = G*x and sigma = sqrt(max(G*x² - mu², 0) + eps²), with the 7x7 Gaussian G of BRISQUE. C is a multiple of one
    number for the whole layer, its scale [ours]: the root mean square of the local deviations over all samples (of all
    processes) and channels. A constant layer has none, so the scale is kept above a hundredth of the layer's root mean square and
    above 0.01. The eps under the root [ours] bounds the gradient where a map is constant.

    Args:
        x: Maps (N, C, H, W), float32 or float64.
        scale: The layer's scale, 0-dim, from another feature (the teacher's); None: x's own, taken as a constant.
        c: C over the scale.
        eps: Over the scale.

    Returns:
        MSCN, local mean and local deviation, each shaped as x, and the scale. The gradient is x's only.
    """
    mean, square = gaussian_filter(torch.stack((x, x * x)))
    variance = (square - mean * mean).clamp_min(0)
    if scale is None:
        with torch.no_grad():
            size, spread = distributed.all_reduce_mean(torch.stack((x.square().mean(), variance.mean()))).sqrt()
            scale = torch.maximum(spread, (size * 1e-2).clamp_min(1e-2))
    deviation = (variance + (eps * scale).square()).sqrt()
    return (x - mean) / (deviation + c * scale), mean, deviation, scale


def gradient_magnitude(x: Tensor, scale: Tensor, eps: float = 1e-2) -> Tensor:
    """Scharr gradient magnitude of each map: sqrt(dx² + dy² + e²) - e, e = eps * scale, so that it has a gradient at 0.

    Args:
        x: Maps (N, C, H, W).
        scale: The layer's scale, 0-dim.
        eps: Over the scale.

    Returns:
        Shaped as x, in its units per pixel; borders replicated. The gradient is x's only.
    """
    dx, dy = _separable(x, "smooth", "slope"), _separable(x, "slope", "smooth")
    least = eps * scale
    return (dx * dx + dy * dy + least * least).sqrt() - least


def product_statistics(maps: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of MSCN maps and of their products with four neighbours, and their distance from those of another feature.

    The products are with the neighbours at the right (H), below left (D2), below (V) and below right (D1); where there is none they
    are 0, as in OpenCV.

    Args:
        maps: (N, C, H, W).
        reference: the products of the other feature; None for the distance 0.

    Returns:
        The moments (4, 5, N, C), means over the positions of p, |p|, p² and max(p, 0)², p being the map itself and its products;
        the distance (N, C), the mean of |p - reference| over those five and all positions; and the products (5, N, C, H, W),
        without gradient.
    """
    return _ProductStatistics.apply(maps, reference)  # type: ignore[return-value]


def _neighbours(padded: Tensor) -> list[Tensor]:
    """Of maps with a border at the left, the right and below: at each position its right, below left, below, below right."""
    return [padded[..., :-1, 2:], padded[..., 1:, :-2], padded[..., 1:, 1:-1], padded[..., 1:, 2:]]


class _ProductStatistics(torch.autograd.Function):
    """By hand: autograd would keep some forty maps, and pass through each of them, where two are enough."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        products = maps.new_empty(5, *maps.shape)
        products[0] = maps
        for product, neighbour in zip(products[1:], _neighbours(F.pad(maps, _BORDER)), strict=True):
            torch.mul(maps, neighbour, out=product)
        flat = products.flatten(3)
        right = flat.clamp_min(0)
        mean, positive = flat.mean(-1), right.mean(-1)
        square, right = (torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1] for x in (flat, right))
        distance, sign = maps.new_zeros(maps.shape[:2]), None
        if reference is not None:
            difference = products - reference
            sign = difference.sign() if ctx.needs_input_grad[0] else None
            distance = difference.abs_().flatten(3).mean(-1).mean(0)
        ctx.save_for_backward(products, sign)
        ctx.mark_non_differentiable(products)
        return torch.stack((mean, 2 * positive - mean, square, right)), distance, products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        products, sign = ctx.saved_tensors
        maps = products[0]
        mean, size, square, right = (grads[0] / maps[0, 0].numel())[..., None, None]
        grad = torch.addcmul(mean, products, 2 * square)
        grad.addcmul_(products.sign(), size).addcmul_(products.clamp_min(0), 2 * right)
        if sign is not None:
            grad.addcmul_(sign, grads[1][..., None, None] / (5 * maps[0, 0].numel()))
        padded = F.pad(grad[0], _BORDER)  # a product's gradient goes to the position and to its neighbour
        middle = padded[..., :-1, 1:-1]
        values, places = _neighbours(F.pad(maps, _BORDER)), _neighbours(padded)
        for product, value, place in zip(grad[1:], values, places, strict=True):
            middle.addcmul_(product, value)
            place.addcmul_(product, maps)
        return middle, None
