"""Wavelet bands of an image, compared where the teacher is nearer the truth: the loss of PSD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, Between, checked
from kd_plugins.losses.shapes import require_same_shape


@LOSS_REGISTRY.register()
@checked
class GatedWaveletLoss(nn.Module):
    """L_spec of PSD (arXiv 2609.34795): each wavelet band follows the teacher's where the teacher's is nearer the truth.

    With the Haar bands of `haar_bands`, d the difference of student and teacher in a band, and M = 1 where the teacher's error
    to the truth is smaller than the student's (without gradient; for the details the mean error of the three orientations):

        L_LL = mean(low_weight * M d²)
        L_HF = sum_l decay^(l-1) mean(M_l / 2 * sum over orientations of d_l²) / sum_l decay^(l-1)
        loss_weight * (L_LL + high_weight * L_HF)

    The paper's head for underwater images is left out: its weight is 1 here [ours].

    Args:
        loss_weight: weight of the term.
        levels: how often the low band is parted again, from 1 to 16.
        low_weight: weight of the low band.
        high_weight: weight of the details.
        decay: weight of a level's details over that of the finer level before it.
        norm: `l2`, squared differences and errors, as published; `l1`, absolute ones [ours]: beside an L1 pixel loss, squared
            differences of images in [0, 1] have hardly a gradient.
        gated: false compares everywhere.

    Attributes:
        share: how much of the bands the last call compared, the mean over the bands, a scalar in [0, 1]; None before, and ungated.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        levels: Annotated[int, Between(1, 16)] = 2,
        low_weight: Annotated[float, AtLeast(0)] = 1.0,
        high_weight: Annotated[float, AtLeast(0)] = 0.1,
        decay: Annotated[float, AtLeast(0)] = 0.5,
        norm: Literal["l1", "l2"] = "l2",
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.levels = levels
        self.low_weight = low_weight
        self.high_weight = high_weight
        self.decay = decay
        self.norm = norm
        self.gated = gated
        self.share: Tensor | None = None

    def forward(self, student: Tensor, teacher: Tensor, gt: Tensor) -> Tensor:
        """Compare two batches of images.

        Args:
            student: (N, C, H, W), in [0, 1].
            teacher: (N, C, H, W).
            gt: (N, C, H, W), the clean images.

        Returns:
            A scalar, in float32 or better.

        Raises:
            ValueError: the shapes differ, or the images are too small for the levels.
        """
        require_same_shape(self, student, teacher, gt)
        if min(student.shape[-2:]) < 2**self.levels:
            raise ValueError(
                f"{type(self).__name__}: images of {student.shape[-1]}x{student.shape[-2]}, expected {2**self.levels} pixels at "
                f"least for levels={self.levels}"
            )
        dtype = torch.promote_types(student.dtype, torch.float32)
        bands = [list(haar_bands(image.to(dtype), self.levels)) for image in (student, teacher, gt)]
        compared = [self._compare(*band) for band in zip(*bands, strict=True)]
        *details, low = [value for value, _ in compared]
        self.share = torch.stack([share for _, share in compared]).mean() if self.gated else None
        weights = [self.decay**level for level in range(self.levels)]
        high = sum(weight * value for weight, value in zip(weights, details, strict=True)) / sum(weights)
        return self.loss_weight * (self.low_weight * low + self.high_weight * high)

    def _compare(self, student: Tensor, teacher: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """Of a level's details half the sum over orientations, of the low band itself, the mean; and the mean of the gate."""
        distance = self._size(student - teacher).sum(0) * (0.5 if len(student) > 1 else 1.0)
        with torch.no_grad():
            mine, theirs = (self._size(band - gt).mean(0) for band in (student, teacher))
            trusted = (theirs < mine).to(distance.dtype) if self.gated else torch.ones_like(distance)
        return (distance * trusted).mean(), trusted.mean()

    def _size(self, x: Tensor) -> Tensor:
        return x.square() if self.norm == "l2" else x.abs()


def haar_bands(x: Tensor, levels: int) -> Iterator[Tensor]:
    """The Haar transform of images, each band over 2^level, so that all of them have the image's range.

    An odd side is cropped by one pixel before each level.

    Args:
        x: (N, C, H, W).
        levels: how often the low band is parted again.

    Yields:
        For each level, from fine to coarse, the details (3, N, C, h, w): between rows, between columns, diagonal. At last the
        low band, (1, N, C, h, w).
    """
    for level in range(1, levels + 1):
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        a, b, c, d = (F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).movedim(2, 0)) / 2
        yield torch.stack((c + d - a - b, b + d - a - c, a - b - c + d)) / 2**level
        x = a + b + c + d
    yield x.unsqueeze(0) / 2**levels
