"""Pairwise products of MSCN maps, their moments, and the distance between two features' products.

Each is an autograd function with its gradient written out, and makes the products in pieces that stay in the cache. All are
differentiable once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# On a CPU the products are made in pieces of this many values, so that they never leave the cache.
_PIECE = 1 << 18


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
