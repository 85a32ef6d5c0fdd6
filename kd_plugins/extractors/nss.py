"""Natural scene statistics for many-channel features: Gaussian filtering, MSCN, pairwise products and their moments.

The operators are those of BRISQUE (Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial
domain", TIP 2012), per channel. Each heavy one is an autograd function with its gradient written out: plain autograd
makes two to three times as many passes over memory, and these run at every training step.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WINDOW = 7
SIGMA = 7 / 6
# Up to this length a banded matrix product beats a depthwise convolution, forward and backward (docs/extractors.md).
_MATMUL_LIMIT = 160


def gaussian_window(size: int = WINDOW, sigma: float = SIGMA, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normalised 1-D Gaussian window, shape (size,); the published BRISQUE uses 7 taps and sigma 7/6."""
    grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-grid.square() / (2 * sigma * sigma))
    return (window / window.sum()).to(dtype)


@lru_cache(maxsize=128)
def _banded(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian filtering of `length` samples as a matrix, borders replicated: (length, length)."""
    window = gaussian_window()
    rows = torch.arange(length)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    for tap in range(WINDOW):
        cols = (rows + tap - WINDOW // 2).clamp(0, length - 1)
        matrix.index_put_((rows, cols), window[tap].expand(length), accumulate=True)
    return matrix.to(device=device, dtype=dtype)


def _matmul_filter(x: Tensor, transpose: bool) -> Tensor:
    """Both passes of the filter (or of its transpose) as batched matrix products."""
    height, width = x.shape[-2:]
    rows, cols = _banded(height, x.dtype, x.device), _banded(width, x.dtype, x.device)
    if transpose:
        rows, cols = rows.t(), cols.t()
    return torch.matmul(rows, torch.matmul(x, cols.t()))


def _conv_filter(x: Tensor) -> Tensor:
    """Both passes as 7-tap convolutions over maps of any size; the channels are folded into the batch."""
    half = WINDOW // 2
    window = gaussian_window(dtype=x.dtype).to(x.device)
    maps = x.reshape(-1, 1, *x.shape[-2:])
    maps = F.conv2d(F.pad(maps, (half, half, 0, 0), mode='replicate'), window.view(1, 1, 1, WINDOW))
    maps = F.conv2d(F.pad(maps, (0, 0, half, half), mode='replicate'), window.view(1, 1, WINDOW, 1))
    return maps.view(x.shape)


def gaussian_filter(x: Tensor) -> Tensor:
    """Filter each map with the 7x7 Gaussian of BRISQUE (sigma 7/6), borders replicated.

    Args:
        x: Maps (..., H, W), floating point.

    Returns:
        The filtered maps, same shape and dtype.
    """
    if max(x.shape[-2:]) <= _MATMUL_LIMIT:
        return _matmul_filter(x, transpose=False)
    return _conv_filter(x)


def _filter_transposed(grad: Tensor) -> Tensor:
    """The gradient of :func:`gaussian_filter`."""
    if max(grad.shape[-2:]) <= _MATMUL_LIMIT:
        return _matmul_filter(grad, transpose=True)
    with torch.enable_grad():  # the borders make the transpose a different filter: let autograd state it
        probe = torch.zeros_like(grad, requires_grad=True)
        return torch.autograd.grad(_conv_filter(probe), probe, grad)[0]


def no_autocast(x: Tensor):
    """Context that keeps the operations on x's device in their own precision."""
    return torch.autocast(x.device.type, enabled=False)


def as_float(x: Tensor) -> Tensor:
    """x in float32, contiguous; float64 stays float64."""
    return x.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()


class _Mscn(torch.autograd.Function):
    """(x, scale or None, C / scale, eps / scale) -> (MSCN, local mean, local deviation, scale)."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor | None, c: float, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with no_autocast(x):
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
        with no_autocast(x):
            centre = torch.zeros_like(x) if grad_mscn is None else grad_mscn * inverse  # towards x - mu
            deviation = centre * mscn
            deviation = deviation.neg_() if grad_sigma is None else torch.sub(grad_sigma, deviation, out=deviation)
            second = deviation.div_(sigma).mul_(0.5)  # towards the filtered square
            mean = torch.addcmul(centre, mu, second, value=2).neg_()
            if grad_mu is not None:
                mean = mean.add_(grad_mu)
            grad = centre.add_(_filter_transposed(mean)).addcmul_(x, _filter_transposed(second), value=2)
        return grad, None, None, None


def mscn(
    x: Tensor, scale: Tensor | None = None, c: float = 0.2, eps: float = 1e-3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        MSCN, local mean and local deviation, each shaped as x, and the scale. Differentiable once, in x only.
    """
    return _Mscn.apply(x, scale, c, eps)  # type: ignore[return-value]


def _neighbours(maps: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of each map and of its neighbour to the right, below, below right and below left."""
    return [
        (maps[..., :, :-1], maps[..., :, 1:]),
        (maps[..., :-1, :], maps[..., 1:, :]),
        (maps[..., :-1, :-1], maps[..., 1:, 1:]),
        (maps[..., :-1, 1:], maps[..., 1:, :-1]),
    ]


class _Structure(torch.autograd.Function):
    """Maps -> the maps and their four pairwise products, stacked in front."""

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        out = maps.new_empty(5, *maps.shape)
        out[0] = maps
        out[1, ..., :, -1:] = 0
        out[2, ..., -1:, :] = 0
        out[3, ..., :, -1:] = 0
        out[3, ..., -1:, :] = 0
        out[4, ..., :, :1] = 0
        out[4, ..., -1:, :] = 0
        for i, (first, second) in enumerate(_neighbours(maps)):
            torch.mul(first, second, out=_neighbours(out[i + 1])[i][0])
        ctx.save_for_backward(maps)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (maps,) = ctx.saved_tensors
        total = grad[0].clone()
        for i, ((first, second), (to_first, to_second)) in enumerate(
            zip(_neighbours(maps), _neighbours(total), strict=True)
        ):
            place = _neighbours(grad[i + 1])[i][0]
            to_first.addcmul_(place, second)
            to_second.addcmul_(place, first)
        return total


def structure_maps(maps: Tensor) -> Tensor:
    """MSCN maps with their four pairwise products: itself, then H (0,1), V (1,0), D1 (1,1), D2 (1,-1).

    Args:
        maps: (N, C, H, W).

    Returns:
        (5, N, C, H, W); a product whose neighbour lies outside is zero, as in OpenCV. Differentiable once.
    """
    return _Structure.apply(maps)  # type: ignore[return-value]


class _OneSidedMoments(torch.autograd.Function):
    """Maps (..., H, W) -> means of p+, p-, p+², p-² (p+ = max(p, 0), p- = max(-p, 0)), stacked in front."""

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        count = maps.shape[-1] * maps.shape[-2]
        flat = maps.flatten(-2)
        positive = flat.clamp_min(0)
        plus = positive.sum(-1)
        plus_sq = torch.linalg.vector_norm(positive, dim=-1).square_()
        minus = plus - flat.sum(-1)
        minus_sq = (torch.linalg.vector_norm(flat, dim=-1).square_() - plus_sq).clamp_min_(0)
        ctx.save_for_backward(maps)
        return torch.stack((plus, minus, plus_sq, minus_sq)).div_(count)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (maps,) = ctx.saved_tensors
        plus, minus, plus_sq, minus_sq = (grad / (maps.shape[-1] * maps.shape[-2])).unsqueeze(-1).unsqueeze(-1)
        above = torch.addcmul(plus, maps, plus_sq, value=2)
        below = torch.addcmul(-minus, maps, minus_sq, value=2)
        return torch.where(maps > 0, above, below)


def one_sided_moments(maps: Tensor) -> Tensor:
    """Means over each map of p+, p-, p+² and p-², where p+ = max(p, 0) and p- = max(-p, 0).

    Args:
        maps: (..., H, W).

    Returns:
        (4, ...), without the last two dimensions of maps. Differentiable once.
    """
    return _OneSidedMoments.apply(maps)  # type: ignore[return-value]


class _ScharrMagnitude(torch.autograd.Function):
    """(x, eps) -> sqrt(dx² + dy² + eps²) - eps."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: Tensor) -> Tensor:
        with no_autocast(x):
            # Scharr (3, 10, 3) / 16 across, central difference along, borders replicated.
            across = F.pad(x, (1, 1, 1, 1), mode='replicate')
            rows = (across[..., :-2, :] + across[..., 2:, :]).mul_(3 / 16).add_(across[..., 1:-1, :], alpha=10 / 16)
            columns = (across[..., :-2] + across[..., 2:]).mul_(3 / 16).add_(across[..., 1:-1], alpha=10 / 16)
            dx = (rows[..., 2:] - rows[..., :-2]).mul_(0.5)
            dy = (columns[..., 2:, :] - columns[..., :-2, :]).mul_(0.5)
            root = (dx * dx).addcmul_(dy, dy).add_(eps * eps).sqrt_()
        ctx.save_for_backward(dx, dy, root)
        return root - eps

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        dx, dy, root = ctx.saved_tensors
        half = grad / root * 0.5
        dx, dy = half * dx, half.mul_(dy)
        height, width = dx.shape[-2:]
        rows = dx.new_zeros(*dx.shape[:-1], width + 2)
        rows[..., 2:] += dx
        rows[..., :-2] -= dx
        columns = dy.new_zeros(*dy.shape[:-2], height + 2, width)
        columns[..., 2:, :] += dy
        columns[..., :-2, :] -= dy
        padded = dx.new_zeros(*dx.shape[:-2], height + 2, width + 2)
        for taps, start in ((3 / 16, 0), (10 / 16, 1), (3 / 16, 2)):
            padded[..., start : start + height, :].add_(rows, alpha=taps)
            padded[..., start : start + width].add_(columns, alpha=taps)
        padded[..., 1, :] += padded[..., 0, :]
        padded[..., -2, :] += padded[..., -1, :]
        padded[..., 1] += padded[..., 0]
        padded[..., -2] += padded[..., -1]
        return padded[..., 1:-1, 1:-1], None


def gradient_magnitude(x: Tensor, scale: Tensor, eps: float = 1e-2) -> Tensor:
    """Scharr gradient magnitude of each map: sqrt(dx² + dy² + e²) - e, e = eps * scale, so that it has a gradient at 0.

    Args:
        x: Maps (N, C, H, W).
        scale: The layer's scale, 0-dim.
        eps: Over the scale.

    Returns:
        Shaped as x, in its units per pixel; borders replicated. Differentiable once, in x only.
    """
    return _ScharrMagnitude.apply(x, scale * eps)  # type: ignore[return-value]
