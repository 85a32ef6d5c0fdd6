"""The Scale Conversion Module: student features brought to the teacher's scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaleConversion(nn.Module):
    """Per stage a 1x1 convolution from the student's channels to the teacher's, and a bilinear resize where sizes differ.

    The teacher's side is left as it is: a learned map on both sides can collapse to a constant. SLKD (arXiv 2501.09268) names the
    module; its form is ours. Trained with the student, dropped at export.

    Args:
        student: channels of the student's features, by group and stage.
        teacher: channels of the teacher's features, likewise.
    """

    def __init__(self, student: Mapping[str, Sequence[int]], teacher: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.project = nn.ModuleDict(
            {
                group: nn.ModuleList(nn.Conv2d(c_s, c_t, 1) for c_s, c_t in zip(student[group], teacher[group], strict=True))
                for group in student
            }
        )

    @torch.no_grad()
    def start_as_selection(self, group: str, stage: int, kept: Tensor) -> None:
        """Start a stage as the selection that the student inherited.

        Args:
            group: e.g. 'encoder'.
            stage: index in the group.
            kept: (C_S,) the teacher channel that each student channel was copied from.
        """
        convolution = self.project[group][stage]  # type: ignore[index]
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
        convolution.weight[kept, torch.arange(len(kept)), 0, 0] = 1.0

    def forward(self, group: str, stage: int, feature: Tensor, size: Sequence[int]) -> Tensor:
        """Convert the student's feature of a stage, or a window of it.

        Args:
            group: e.g. 'encoder'.
            stage: index in the group.
            feature: (N, C_S, H_S, W_S).
            size: H_T, W_T of the teacher's.

        Returns:
            (N, C_T, H_T, W_T).
        """
        feature = self.project[group][stage](feature)  # type: ignore[index]
        if feature.shape[-2:] != torch.Size(size):
            feature = F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
        return feature
