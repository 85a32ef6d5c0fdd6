"""Trust: a teacher is followed where it is nearer the truth than the student is [ours, after PSD, arXiv 2609.34795]."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_WINDOW = 16


class Trust(NamedTuple):
    """Where a term counts, told from the three images of a step.

    Attributes:
        window: side of the square, in pixels of the image, over which errors are averaged before they are compared; 1 to 16.
        tau: None for a hard mask (1 where the teacher's error is smaller, else 0); a number above 0 for the soft one,
            sigmoid((student's error - teacher's error) / tau), in units of the image's range.
    """

    window: int = 7
    tau: float | None = None

    def checked(self) -> Trust:
        """Itself.

        Raises:
            ValueError: an attribute is out of range.
        """
        if isinstance(self.window, bool) or not isinstance(self.window, int) or not 1 <= self.window <= LARGEST_WINDOW:
            raise ValueError(f"trust: window={self.window!r}, expected a whole number from 1 to {LARGEST_WINDOW}")
        if self.tau is not None and (not isinstance(self.tau, (int, float)) or not 0 < self.tau < math.inf):
            raise ValueError(f"trust: tau={self.tau!r}, expected a number above 0, or nothing for a hard mask")
        return self

    @torch.no_grad()
    def mask(self, student: Tensor, teacher: Tensor, gt: Tensor) -> Tensor:
        """How far the teacher is trusted at each pixel.

        Args:
            student: (N, C, H, W), the student's image.
            teacher: (N, C, H, W), the teacher's.
            gt: (N, C, H, W), the clean one.

        Returns:
            (N, 1, H, W) in [0, 1], float32 or better, without gradient.
        """
        gt = gt.to(torch.promote_types(gt.dtype, torch.float32))
        lead = ((student - gt).abs() - (teacher - gt).abs()).mean(1, keepdim=True)
        if self.window > 1:
            before, after = (self.window - 1) // 2, self.window // 2
            lead = F.avg_pool2d(F.pad(lead, (before, after, before, after), mode="replicate"), self.window, stride=1)
        return (lead > 0).to(lead.dtype) if self.tau is None else torch.sigmoid(lead / self.tau)


def where_trusted(mask: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """The student's tensor where the teacher is trusted, the teacher's own elsewhere: a loss finds nothing to compare there.

    Args:
        mask: (N, 1, H, W) in [0, 1].
        student: (N, C, h, w), an image or a feature.
        teacher: (N, C, h, w).

    Returns:
        (N, C, h, w); its gradient is the student's, times the mask.
    """
    return torch.lerp(teacher, student, fitted(mask, student))


def fitted(mask: Tensor, tensor: Tensor) -> Tensor:
    """A mask at the size of a feature (the mean over each area), in its precision."""
    if mask.shape[-2:] != tensor.shape[-2:]:
        mask = F.interpolate(mask, tensor.shape[-2:], mode="area")
    return mask.to(tensor.dtype)
