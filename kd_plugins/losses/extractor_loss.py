"""Losses between features, seen through an extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, checked
from kd_plugins.extractors import EXTRACTOR, build_extractor
from kd_plugins.losses.shapes import require_same_shape, same_window

ExtractorBlock = Annotated[Mapping[str, Any], EXTRACTOR]
Window = Annotated[int, AtLeast(8)] | None


@LOSS_REGISTRY.register()
@checked
class ExtractorLoss(nn.Module):
    """L1 between what an extractor says of the student's feature and of the teacher's.

    The extractor describes the teacher's feature first; the student's is described in the teacher's terms (its scale, its active
    blocks). The loss is the mean, over the entries of the student's description, of their mean absolute
    differences: an extractor with more entries does not weigh more.

    A feature larger than `window` is compared in one random window of that size, the same for student and teacher and a new one at
    each call [ours]: the full-size stages cost most and say much the same everywhere.

    Args:
        extractor: {type: NAME, ...}, a class of EXTRACTOR_REGISTRY and its arguments.
        loss_weight: weight of the term.
        window: side of the window in feature pixels, None for whole features.

    Raises:
        ValueError: the window is smaller than 8, or an extractor of images.
    """

    def __init__(self, extractor: ExtractorBlock, loss_weight: float = 1.0, window: Window = 16) -> None:
        super().__init__()
        self.extractor = build_extractor(extractor, of_features=True)
        self.loss_weight = loss_weight
        self.looks_through = window

    def forward(self, student: Tensor, teacher: Tensor, stride: int = 1) -> Tensor:
        """Compare two features of one stage.

        Args:
            student: (N, C, H, W), at the teacher's scale.
            teacher: (N, C, H, W).
            stride: image pixels per feature pixel.

        Returns:
            A scalar.

        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(self, student, teacher)
        student, teacher = same_window(self.looks_through, student, teacher)
        with torch.no_grad():
            target = self.extractor(teacher, stride=stride)
        description = self.extractor(student, reference=target, stride=stride)
        differences = [(value - target[key]).abs().mean() for key, value in description.items()]
        return self.loss_weight * torch.stack(differences).mean()


@LOSS_REGISTRY.register()
@checked
class BrisqueFeatureLoss(ExtractorLoss):
    """L_NC of SLKD (arXiv 2501.09268): structure and colour of a feature; the extractor's feature form is ours."""

    def __init__(self, loss_weight: float = 1.0, extractor: ExtractorBlock | None = None, window: Window = 16) -> None:
        super().__init__(extractor or {"type": "BrisqueExtractor"}, loss_weight, window)


@LOSS_REGISTRY.register()
@checked
class PiqeFeatureLoss(ExtractorLoss):
    """L_ET of SLKD (arXiv 2501.09268): edges and texture of a feature; the extractor's feature form is ours."""

    def __init__(self, loss_weight: float = 1.0, extractor: ExtractorBlock | None = None, window: Window = 16) -> None:
        super().__init__(extractor or {"type": "PiqeExtractor"}, loss_weight, window)
