"""Natural scene statistics of many-channel features: filters, MSCN, gradient magnitude.

The operators are those of BRISQUE (Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial
domain", TIP 2012), per channel. They run at every training step, so each heavy one is an autograd function with its
gradient written out, that touches memory as seldom as it can. All are differentiable once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_plugins import distributed

WINDOW = 7
SIGMA = 7 / 6
_SCHARR = (3 / 16, 10 / 16, 3 / 16)
_SMALL = 64  # positions up to which one product of matrices beats two batches of small ones


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


@lru_cache(maxsize=256)
def _dense_operator(vertical: str, horizontal: str, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A separable operator on maps of height x width as one matrix on their positions."""
    return torch.kron(_operator(vertical, height, dtype, device), _operator(horizontal, width, dtype, device))


def _separable(x: Tensor, vertical: str, horizontal: str, transpose: bool = False) -> Tensor:
    """Apply one operator along the columns and one along the rows of maps (..., H, W); or the transpose of both."""
    height, width = x.shape[-2:]
    if height * width <= _SMALL:
        operator = _dense_operator(vertical, horizontal, height, width, x.dtype, x.device)
        return torch.matmul(x.reshape(-1, height * width), operator if transpose else operator.t()).view(x.shape)
    rows = _operator(vertical, height, x.dtype, x.device)
    cols = _operator(horizontal, width, x.dtype, x.device)
    if transpose:
        rows, cols = rows.t(), cols.t()
    return torch.matmul(rows, torch.matmul(x, cols.t()))


def gaussian_filter(x: Tensor, transpose: bool = False) -> Tensor:
    """Filter maps (..., H, W) with the 7x7 Gaussian of BRISQUE, borders replicated; or its transpose."""
    return _separable(x, "gauss", "gauss", transpose)


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


class _Mscn(torch.autograd.Function):
    """(x, scale or None, C / scale, eps / scale) -> (MSCN, local mean, local deviation, scale)."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor | None, c: float, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with full_precision(x):
            mu, square = gaussian_filter(torch.stack((x, x * x)))
            variance = square.addcmul_(mu, mu, value=-1).clamp_min_(0)
            if scale is None:
                size, spread = distributed.all_reduce_mean(torch.stack((x.square().mean(), variance.mean()))).sqrt()
                scale = torch.maximum(spread, (size * 1e-2).clamp_min(1e-2))
            sigma = variance.add_((eps * scale).square()).sqrt_()
            inverse = (sigma + c * scale).reciprocal_()
            mscn = (x - mu).mul_(inverse)
        ctx.save_for_backward(x, mu, sigma, inverse, mscn)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(scale)
        return mscn, mu, sigma, scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mscn: Tensor | None, grad_mu: Tensor | None, grad_sigma: Tensor | None, _):  # type: ignore[override]
        x, mu, sigma, inverse, mscn = ctx.saved_tensors
        with full_precision(x):
            centre = torch.zeros_like(x) if grad_mscn is None else grad_mscn * inverse  # towards x - mu
            deviation = centre * mscn
            deviation = deviation.neg_() if grad_sigma is None else torch.sub(grad_sigma, deviation, out=deviation)
            second = deviation.div_(sigma).mul_(0.5)  # towards the filtered square
            mean = torch.addcmul(centre, mu, second, value=2).neg_()
            if grad_mu is not None:
                mean = mean.add_(grad_mu)
            mean, second = gaussian_filter(torch.stack((mean, second)), transpose=True)
            grad = centre.add_(mean).addcmul_(x, second, value=2)
        return grad, None, None, None


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
    return _Mscn.apply(x, scale, c, eps)  # type: ignore[return-value]


class _ScharrMagnitude(torch.autograd.Function):
    """(x, eps) -> sqrt(dx² + dy² + eps²) - eps."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: Tensor) -> Tensor:
        with full_precision(x):
            dx, dy = _separable(x, "smooth", "slope"), _separable(x, "slope", "smooth")
            root = (dx * dx).addcmul_(dy, dy).add_(eps * eps).sqrt_()
        ctx.save_for_backward(dx, dy, root)
        return root - eps

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        dx, dy, root = ctx.saved_tensors
        with full_precision(dx):
            unit = grad / root
            dx = _separable(dx * unit, "smooth", "slope", transpose=True)
            return dx.add_(_separable(unit.mul_(dy), "slope", "smooth", transpose=True)), None


def gradient_magnitude(x: Tensor, scale: Tensor, eps: float = 1e-2) -> Tensor:
    """Scharr gradient magnitude of each map: sqrt(dx² + dy² + e²) - e, e = eps * scale, so that it has a gradient at 0.

    Args:
        x: Maps (N, C, H, W).
        scale: The layer's scale, 0-dim.
        eps: Over the scale.

    Returns:
        Shaped as x, in its units per pixel; borders replicated. The gradient is x's only.
    """
    return _ScharrMagnitude.apply(x, scale * eps)  # type: ignore[return-value]
