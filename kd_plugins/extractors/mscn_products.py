"""Pairwise products of MSCN maps: their moments, and the distance between two features' products.

One autograd function with its gradient written out, differentiable once. A map is laid out with a column and a row of zeros at its
right and bottom: its neighbours then lie at fixed distances in memory, also across rows and channels, and all channels and
samples are one line of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# On a CPU the products are made in pieces of this many values, so that they stay in the cache.
_PIECE = 1 << 17


class _Layout:
    """Maps (N, C, H, W) as rows (N * C, (H + 1) * (W + 1)), and the distances in memory to the neighbours H, D2, V, D1."""

    def __init__(self, maps: Tensor) -> None:
        self.shape, self.width = maps.shape, maps.shape[-1] + 1
        self.positions = maps.shape[-2] * maps.shape[-1]
        self.length = (maps.shape[-2] + 1) * self.width
        self.shifts = (1, self.width - 1, self.width, self.width + 1)

    def rows(self, maps: Tensor) -> Tensor:
        return F.pad(maps, (0, 1, 0, 1)).view(-1, self.length)

    def maps(self, rows: Tensor) -> Tensor:
        n, c, h, _ = self.shape
        return rows.view(n, c, h + 1, self.width)[..., :-1, :-1]

    def pieces(self, rows: Tensor) -> Iterator[slice]:
        size = max(1, _PIECE // self.length) if rows.device.type == "cpu" else len(rows)
        return (slice(start, start + size) for start in range(0, len(rows), size))

    def products(self, rows: Tensor) -> Tensor:
        """The maps and their products with each neighbour, (5, rows, length); 0 where the neighbour lies outside."""
        line = rows.reshape(-1)
        out = line.new_empty(5, line.numel())
        out[0] = line
        for product, shift in zip(out[1:], self.shifts, strict=True):
            torch.mul(line[:-shift], line[shift:], out=product[:-shift])
            product[-shift:] = 0
        return out.view(5, -1, self.length)

    def pull_back(self, grad: Tensor, rows: Tensor) -> Tensor:
        """The gradient towards the rows of a gradient (5, rows, length) towards their products."""
        line, (total, *grads) = rows.reshape(-1), grad.view(5, -1)
        for product, shift in zip(grads, self.shifts, strict=True):
            product = product[:-shift]
            total[:-shift].addcmul_(product, line[shift:])
            total[shift:].addcmul_(product, line[:-shift])
        return total.view(-1, self.length)


class _Products(torch.autograd.Function):
    """(maps, others or None) -> distance (N, C), moments (4, 5, N, C)."""

    @staticmethod
    def forward(ctx, maps: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
        layout = _Layout(maps)
        rows = layout.rows(maps)
        other_rows = None if others is None else layout.rows(others)
        mean = rows.new_full((layout.length,), 1 / layout.positions)
        distance, moments = rows.new_zeros(len(rows)), rows.new_empty(4, 5, len(rows))
        for piece in layout.pieces(rows):
            products = layout.products(rows[piece])
            if other_rows is not None:
                difference = (products - layout.products(other_rows[piece])).abs_()
                distance[piece] = torch.matmul(difference, mean).mean(0)
            positive, value = products.clamp_min(0), torch.matmul(products, mean)
            moments[0, :, piece] = value
            moments[1, :, piece] = 2 * torch.matmul(positive, mean) - value
            moments[2, :, piece] = torch.matmul(products.square_(), mean)
            moments[3, :, piece] = torch.matmul(positive.square_(), mean)
        ctx.layout, ctx.compared = layout, others is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, *([] if other_rows is None else [other_rows]))
        return distance.view(maps.shape[:2]), moments.view(4, 5, *maps.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_distance: Tensor | None, grad_moments: Tensor | None):  # type: ignore[override]
        layout: _Layout = ctx.layout
        rows, *other_rows = ctx.saved_tensors
        grad = torch.empty_like(rows)
        for piece in layout.pieces(rows):
            products, total = layout.products(rows[piece]), None
            if grad_distance is not None and other_rows:
                sign = (products - layout.products(other_rows[0][piece])).sign_()
                total = sign.mul_((grad_distance / (5 * layout.positions)).view(1, -1, 1)[:, piece])
            if grad_moments is not None:
                value, size, square, positive = (grad_moments / layout.positions).view(4, 5, -1, 1)[:, :, piece]
                total = value.expand_as(products).clone() if total is None else total.add_(value)
                total.addcmul_(products, 2 * square).addcmul_(products.sign(), size)
                total.addcmul_(products.clamp_min_(0), 2 * positive)
            if total is None:
                return None, None
            grad[piece] = layout.pull_back(total, rows[piece])
        return layout.maps(grad), None


def product_moments(maps: Tensor) -> Tensor:
    """Moments of MSCN maps and of their four products.

    Args:
        maps: (N, C, H, W).

    Returns:
        (4, 5, N, C): means over the positions of p, |p|, p² and max(p, 0)², of p: the map itself, and its products with the
        neighbours at the right (H), below left (D2), below (V) and below right (D1); a product is 0 where the neighbour lies
        outside, as in OpenCV.
    """
    return _Products.apply(maps, None)[1]  # type: ignore[index]


def compare_products(maps: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance between two features' MSCN maps and products, and the moments of the first ones.

    The dense products are made piece by piece and not kept.

    Args:
        maps: (N, C, H, W).
        others: As maps; taken as a constant.

    Returns:
        (N, C): the mean absolute difference over the map, its four products and all positions; and `product_moments(maps)`.
    """
    return _Products.apply(maps, others)  # type: ignore[return-value]
