"""What losses between a student's tensor and the teacher's share: the check they make first, the window they look through."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_plugins import distributed


def require_same_shape(loss: object, student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors that would only be compared by broadcasting one of them.

    Args:
        loss: the loss, named in the message.
        student: (N, C, H, W).
        teacher: (N, C, H, W).

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"{type(loss).__name__}: the student's tensor is {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}; "
            "expected the same shape"
        )


def same_window(size: int | None, *tensors: Tensor, agreed: bool = False) -> list[Tensor]:
    """One random window of several tensors, at the same place in each.

    Args:
        size: side of the window; None, or more than a side, for the whole of it.
        tensors: (..., H, W), of one size.
        agreed: the same place in all processes.
    """
    if size is None:
        return list(tensors)
    corner = [int(torch.randint(max(side - size, 0) + 1, ())) for side in tensors[0].shape[-2:]]
    top, left = distributed.broadcast_object(corner) if agreed else corner
    return [tensor[..., top : top + size, left : left + size] for tensor in tensors]
