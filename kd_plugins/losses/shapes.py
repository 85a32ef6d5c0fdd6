"""What losses between a student's tensor and the teacher's share: the check they make first, the window they look through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_plugins import distributed


def require_same_shape(loss: object, student: Tensor, teacher: Tensor, gt: Tensor | None = None) -> None:
    """Refuse tensors that would only be compared by broadcasting one of them.

    Args:
        loss: the loss, named in the message.
        student: (N, C, H, W).
        teacher: (N, C, H, W).
        gt: (N, C, H, W), the clean image, of a loss that looks at it.

    Raises:
        ValueError: the shapes differ.
    """
    if len({x.shape for x in (student, teacher, gt) if x is not None}) > 1:
        clean = "" if gt is None else f", the clean image {tuple(gt.shape)}"
        raise ValueError(
            f"{type(loss).__name__}: the student's tensor is {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}{clean}; "
            "expected the same shape"
        )


def same_window(size: int | None, *tensors: Tensor, agreed: bool = False) -> list[Tensor]:
    """One random window of several tensors, at the same place in each.

    Args:
        size: side of the window; None, or more than a side, for the whole of it.
        tensors: (N, C, H, W), of one size.
        agreed: the same place in all processes.

    Returns:
        The tensors themselves where the window hides nothing of them, else contiguous copies.
    """
    height, width = tensors[0].shape[-2:]
    if size is None or size >= max(height, width):
        return list(tensors)
    corner = [int(torch.randint(max(side - size, 0) + 1, ())) for side in (height, width)]
    top, left = distributed.broadcast_object(corner) if agreed else corner
    place = (..., slice(top, top + size), slice(left, left + size))
    return [_Window.apply(tensor, place) if tensor.requires_grad else tensor[place].contiguous() for tensor in tensors]  # type: ignore[misc]


class _Window(torch.autograd.Function):
    """A slice of both sides whose gradient lies in memory as the tensor does: the layers before it keep their layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: tuple[Any, ...]) -> Tensor:
        ctx.place, ctx.like = place, torch.empty_like(x, device="meta")
        return x[place].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        whole = torch.zeros_like(ctx.like, device=grad.device)
        whole[ctx.place] = grad
        return whole, None
