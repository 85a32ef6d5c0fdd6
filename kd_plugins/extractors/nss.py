"""Natural scene statistics of many-channel features: MSCN, pairwise products, their moments, gradient magnitude.

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

WINDOW = 7
SIGMA = 7 / 6
_SCHARR = (3 / 16, 10 / 16, 3 / 16)
# On a CPU the products are made in pieces of this many values, so that they never leave the cache.
_PIECE = 1 << 18


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


def _separable(x: Tensor, vertical: str, horizontal: str, transpose: bool = False) -> Tensor:
    """Apply one operator along the columns and one along the rows of maps (..., H, W); or the transpose of both."""
    rows = _operator(vertical, x.shape[-2], x.dtype, x.device)
    cols = _operator(horizontal, x.shape[-1], x.dtype, x.device)
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
            mu = gaussian_filter(x)
            variance = gaussian_filter(x * x).addcmul_(mu, mu, value=-1).clamp_min_(0)
            if scale is None:
                floor = (x.square().mean().sqrt_() * 1e-2).clamp_min_(1e-2)
                scale = torch.maximum(variance.mean().sqrt_(), floor)
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
            grad = centre.add_(gaussian_filter(mean, transpose=True))
            grad.addcmul_(x, gaussian_filter(second, transpose=True), value=2)
        return grad, None, None, None


def mscn(x: Tensor, scale: Tensor | None = None, c: float = 0.2, eps: float = 1e-3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean-subtracted contrast-normalised maps, (x - mu) / (sigma + C), of a feature.

    mu = G*x and sigma = sqrt(max(G*x² - mu², 0) + eps²), with the 7x7 Gaussian G of BRISQUE. C is a multiple of one
    number for the whole layer, its scale [ours]: the root mean square of the local deviations over all samples and
    channels. A constant layer has none, so the scale is kept above a hundredth of the layer's root mean square and
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


def _pieces(maps: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Samples of (N, C, H, W) in pieces that fit the cache; all at once on an accelerator."""
    samples = maps.shape[0]
    size = max(1, _PIECE // max(maps[0].numel(), 1)) if maps.device.type == "cpu" else samples
    for start in range(0, samples, size):
        piece = slice(start, min(start + size, samples))
        yield piece, maps[piece]


def _shifts(width: int) -> tuple[int, ...]:
    """Distance in memory to the neighbour of H (0,1), V (1,0), D1 (1,1) and D2 (1,-1)."""
    return 1, width, width + 1, width - 1


def _clear_outside(maps: Tensor, number: int) -> Tensor:
    """Zero the places of product `number` whose neighbour lies outside (where a shift in memory wraps around)."""
    if number != 1:
        maps[..., 0 if number == 3 else -1].zero_()
    if number != 0:
        maps[..., -1:, :].zero_()
    return maps


def _position_mean(maps: Tensor) -> Tensor:
    """Mean over the positions of (N, C, H, W); as a matrix-vector product, which short rows slow down least."""
    flat = maps.view(maps.shape[0], maps.shape[1], -1)
    return torch.matmul(flat, flat.new_full((flat.shape[-1],), 1 / flat.shape[-1]))


def pairwise_product(maps: Tensor, number: int) -> Tensor:
    """Product of each value with its neighbour: 0 right (H), 1 below (V), 2 below right (D1), 3 below left (D2).

    Args:
        maps: (N, C, H, W), contiguous.
        number: Which neighbour.

    Returns:
        Shaped as maps; 0 where the neighbour lies outside, as in OpenCV.
    """
    # Shifted in memory, not sliced per row: rows are short and a slice leaves the vector units idle.
    shift = _shifts(maps.shape[-1])[number]
    out = torch.empty_like(maps)
    flat, target = maps.view(-1), out.view(-1)
    end = max(flat.numel() - shift, 0)
    torch.mul(flat[:end], flat[shift:], out=target[:end])
    return _clear_outside(out, number)


def _add_product_gradient(total: Tensor, grad: Tensor, maps: Tensor, number: int) -> None:
    """Add to `total` what `grad` of product `number` means for the maps; `grad` is used up."""
    shift = _shifts(maps.shape[-1])[number]
    flat, into = maps.view(-1), total.view(-1)
    end = max(flat.numel() - shift, 0)
    grad = _clear_outside(grad, number).view(-1)[:end]
    into[:end].addcmul_(grad, flat[shift:])
    into[shift:].addcmul_(grad, flat[:end])


class _StructureDistance(torch.autograd.Function):
    """(maps, others) -> mean absolute difference of the maps and of their four products, for each channel (N, C)."""

    @staticmethod
    def forward(ctx, maps: Tensor, others: Tensor) -> Tensor:
        distance = maps.new_zeros(maps.shape[:2])
        gradient = torch.empty_like(maps) if ctx.needs_input_grad[0] else None
        for piece, values in _pieces(maps):
            for number in range(5):
                if number == 0:
                    difference = values - others[piece]
                else:
                    difference = pairwise_product(values, number - 1)
                    difference -= pairwise_product(others[piece], number - 1)
                sign = torch.sign(difference, out=gradient[piece] if gradient is not None and number == 0 else None)
                distance[piece] += _position_mean(difference.mul_(sign))
                if gradient is not None and number:
                    _add_product_gradient(gradient[piece], sign, values, number - 1)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.count = 5 * maps.shape[-1] * maps.shape[-2]
        return distance.div_(5)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * (grad / ctx.count).unsqueeze(-1).unsqueeze(-1), None


def structure_distance(maps: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference of MSCN maps and of their four products H, V, D1, D2.

    The gradient is made on the way, so that the five dense maps of both sides never have to be stored.

    Args:
        maps: (N, C, H, W), contiguous.
        others: As maps; taken as a constant.

    Returns:
        (N, C): for each channel the mean over five maps and all positions.
    """
    return _StructureDistance.apply(maps, others)  # type: ignore[return-value]


class _ProductMoments(torch.autograd.Function):
    """Maps (N, C, H, W) -> means of p+, p-, p+², p-² for the maps and their four products, (4, 5, N, C)."""

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        out = maps.new_empty(4, 5, *maps.shape[:2])
        for piece, values in _pieces(maps):
            for number in range(5):
                product = values if number == 0 else pairwise_product(values, number - 1)
                positive = product.clamp_min(0)
                mean, plus = _position_mean(product), _position_mean(positive)
                square, plus_sq = _position_mean(product.square()), _position_mean(positive.square_())
                torch.stack((plus, plus - mean, plus_sq, square - plus_sq), out=out[:, number, piece])
        ctx.save_for_backward(maps)
        return out.clamp_min_(0)  # differences of sums may round below

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (maps,) = ctx.saved_tensors
        grad = (grad / (maps.shape[-1] * maps.shape[-2])).unsqueeze(-1).unsqueeze(-1)
        gradient = torch.empty_like(maps)
        plus, minus, plus_sq, minus_sq = grad
        # p+ and p- written with p, max(p, 0) and sign(p): torch.where is five times slower than these on a CPU.
        linear, bent, step, level = 2 * minus_sq, 2 * (plus_sq - minus_sq), (plus + minus) / 2, (plus - minus) / 2
        for piece, values in _pieces(maps):
            for number in range(5):
                product = values if number == 0 else pairwise_product(values, number - 1)
                into = torch.mul(product, linear[number, piece], out=gradient[piece] if number == 0 else None)
                into.addcmul_(product.clamp_min(0), bent[number, piece])
                into.addcmul_(product.sign(), step[number, piece]).add_(level[number, piece])
                if number:
                    _add_product_gradient(gradient[piece], into, values, number - 1)
        return gradient


def product_moments(maps: Tensor) -> Tensor:
    """One-sided moments of MSCN maps and of their four products.

    Args:
        maps: (N, C, H, W), contiguous.

    Returns:
        (4, 5, N, C): means over the positions of p+, p-, p+², p-² (p+ = max(p, 0), p- = max(-p, 0)), for p the map
        itself, H, V, D1 and D2.
    """
    return _ProductMoments.apply(maps)  # type: ignore[return-value]


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
