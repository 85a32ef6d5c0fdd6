"""The contrastive loss between restored images, in a feature space that the option file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.arguments import Above, AtLeast, MinLen, checked
from kd_plugins.extractors import EXTRACTOR, build_extractor
from kd_plugins.losses.distances import level_weights, precise, summed_distance
from kd_plugins.losses.shapes import require_same_shape, same_window

Negative = Literal["own", "others"]


@LOSS_REGISTRY.register()
@checked
class ContrastiveImageLoss(nn.Module):
    """L_CL of SKD (arXiv 2501.09321): close to the teacher's image, far from degraded ones, in a feature space phi.

    The student's image is the anchor a, the teacher's the positive p, degraded inputs of the batch the negatives n:

        loss_weight * sum_l w_l mean over samples of  |phi_l(a) - phi_l(p)| / (mean over n of |phi_l(a) - phi_l(n)| + eps)

    where |.| is the mean absolute difference over the channels and positions of one sample. The ratio is the form of CSD (arXiv
    2105.11683), eps = 1e-6 is SKD's; which images are negatives, and the rest, is ours: CSD adds up the distances to the
    negatives, here they are averaged, so that the value and the best weight do not change with the batch size or `count`, and
    the ratio is taken for each sample, so that what one image loses to its own negatives does not depend on the others.

    With `own` alone, an output that equals its own input has a denominator of eps: the ratio and its gradient are huge where a
    student starts as the identity, or an input is not degraded at all. `others` bounds the denominator from below.

    Args:
        loss_weight: weight of the term.
        extractor: the feature space, {type: NAME, ...}, a class of EXTRACTOR_REGISTRY and its arguments; default TeacherExtractor,
            which needs no download.
        negatives: which degraded inputs: `own` (of the same sample), `others` (of the other samples of the batch, those of all
            processes), or both.
        count: how many of the others, the next ones in the batch; None for all.
        weights: one for each level, shallow to deep. Default 1/32, 1/16, 1/8, 1/4, 1, the last of them for fewer levels.
        window: side of a random window, the same one for all images and new at each call, that is compared in place of the
            whole images (for speed) [ours]; None for whole images.
        eps: added to the denominator.

    Raises:
        ValueError: an argument is out of range, or an extractor of features.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        extractor: Annotated[Mapping[str, Any], EXTRACTOR] | None = None,
        negatives: Negative | Annotated[Sequence[Negative], MinLen(1)] = ("own", "others"),
        count: Annotated[int, AtLeast(1)] | None = None,
        weights: Sequence[float] | None = None,
        window: Annotated[int, AtLeast(8)] | None = None,
        eps: Annotated[float, Above(0)] = 1e-6,
    ) -> None:
        super().__init__()
        chosen = (negatives,) if isinstance(negatives, str) else tuple(negatives)
        if count is not None and "others" not in chosen:
            raise ValueError(f"{type(self).__name__}: count: {count}, expected `others` among the negatives ({', '.join(chosen)})")
        self.loss_weight = loss_weight
        self.extractor = build_extractor(extractor or {"type": "TeacherExtractor"}, of_features=False)
        self.negatives = chosen
        self.count = count
        self.weights = None if weights is None else tuple(weights)
        self.window = window
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor, lq: Tensor) -> Tensor:
        """Compare two batches of images.

        Args:
            student: (N, 3, H, W), the anchors.
            teacher: (N, 3, H, W), the positives.
            lq: (N, 3, h, w) in [0, 1], the degraded inputs; resized (bicubic) where h x w is not H x W.

        Returns:
            A scalar, in float32 or better.

        Raises:
            ValueError: shapes that do not fit, a batch too small for `others`, or more levels than weights.
        """
        require_same_shape(self, student, teacher)
        with_others = "others" in self.negatives
        shifts = self.shifts(len(student))
        images = same_window(self.window, student, teacher, self._resized(lq, student), agreed=with_others)
        anchors = self.extractor(images[0])
        with torch.no_grad():
            known = self.extractor(torch.cat(images[1:]))
        values = []
        for weight, anchor, level in zip(level_weights(self, self.weights, len(anchors)), anchors, known, strict=True):
            positive, degraded = (precise(x) for x in level.chunk(2))
            anchor = precise(anchor)
            near = (anchor - positive).abs().flatten(1).mean(1)
            everyone = distributed.all_gather_batch(degraded) if with_others else degraded
            others = (distributed.local_batch(everyone.roll(-shift, 0)) if shift else degraded for shift in shifts)
            far = summed_distance(anchor, others) / len(shifts)
            values.append(weight * (near / (far + self.eps)).mean())
        return self.loss_weight * torch.stack(values).sum()

    def shifts(self, samples: int) -> tuple[int, ...]:
        """By how many places the batch is rolled for each negative; a run asks for it before its first step.

        Args:
            samples: of the batch, in a process.

        Raises:
            ValueError: a batch too small for `others`.
        """
        batch = samples * distributed.world_size()
        own = (0,) if "own" in self.negatives else ()
        if "others" not in self.negatives:
            return own
        count = batch - 1 if self.count is None else self.count
        if batch < 2 or count > batch - 1:
            asked = f"negatives={list(self.negatives)}" + (f", count={self.count}" if self.count else "")
            raise ValueError(
                f"{type(self).__name__}: {asked}, but a batch of {batch} has {batch - 1} others for each image; "
                "use a larger batch, a smaller `count`, or `negatives: [own]`"
            )
        return (*own, *range(1, count + 1))

    def _resized(self, lq: Tensor, student: Tensor) -> Tensor:
        if lq.shape[:2] != student.shape[:2]:
            raise ValueError(
                f"{type(self).__name__}: lq is {tuple(lq.shape)}, the student's image {tuple(student.shape)}; "
                "expected as many images of as many channels"
            )
        size = student.shape[-2:]
        if lq.shape[-2:] == size:
            return lq
        # `antialias` is also what chooses the field's bicubic kernel (a = -0.5, MATLAB's)
        return F.interpolate(precise(lq), size, mode="bicubic", antialias=True).clamp(0, 1).to(lq.dtype)
