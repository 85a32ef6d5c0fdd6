"""Trust: a teacher is followed where it is nearer the truth than the student is [ours, after PSD, arXiv 2609.34795]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.arguments import AtLeast, Between, checked
from kd_plugins.losses.shapes import require_same_shape


@checked
@dataclass(frozen=True)
class Trust:
    """Where a term counts, told from the three images of a step.

    Attributes:
        window: side of the square, in pixels of the image, over which errors are averaged before they are compared; 1 to 16.
        tau: None for a hard mask (1 where the teacher's error is smaller, else 0); a number from 1e-6 up for the soft one,
            sigmoid((student's error - teacher's error) / tau), in units of the image's range.

    Raises:
        ValueError: an attribute is out of range.
    """

    window: Annotated[int, Between(1, 16)] = 7
    tau: Annotated[float, AtLeast(1e-6)] | None = None

    @torch.no_grad()
    def mask(self, student: Tensor, teacher: Tensor, gt: Tensor) -> Tensor:
        """How far the teacher is trusted at each pixel.

        Args:
            student: (N, C, H, W), the student's image.
            teacher: (N, C, H, W), the teacher's.
            gt: (N, C, H, W), the clean one.

        Returns:
            (N, 1, H, W) in [0, 1], float32 or better, without gradient.

        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(self, student, teacher, gt)
        gt = gt.to(torch.promote_types(gt.dtype, torch.float32))
        lead = ((student - gt).abs() - (teacher - gt).abs()).mean(1, keepdim=True)
        if self.window > 1:
            before, after = (self.window - 1) // 2, self.window // 2
            lead = F.avg_pool2d(F.pad(lead, (before, after, before, after), mode="replicate"), self.window, stride=1)
        return (lead > 0).to(lead.dtype) if self.tau is None else torch.sigmoid(lead / self.tau)


def where_trusted(mask: Tensor, student: Tensor, instead: Tensor) -> Tensor:
    """The student's tensor where the teacher is trusted, another elsewhere.

    Args:
        mask: (N, 1, H, W) in [0, 1].
        student: (N, C, h, w), an image or a feature.
        instead: (N, C, h, w): the teacher's, and a loss finds nothing to compare there; or the student's own, detached: its value
            stays, its gradient alone is masked.

    Returns:
        (N, C, h, w), in the better of the two precisions; its gradient is the student's, times the mask (at a feature's size the
        mean over each area).
    """
    if mask.shape[-2:] != student.shape[-2:]:
        mask = F.interpolate(mask, student.shape[-2:], mode="area")
    dtype = torch.promote_types(student.dtype, instead.dtype)
    return torch.lerp(instead.to(dtype), student.to(dtype), mask.to(dtype))
