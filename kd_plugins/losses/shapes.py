"""The check that every loss between a student's tensor and the teacher's makes first."""

from __future__ import annotations

from torch import Tensor


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
