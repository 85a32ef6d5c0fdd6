"""The Scale Conversion Module: student features brought to the teacher's scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = Mapping[str, Sequence[Tensor]]


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

    def forward(self, student: Features, teacher: Features) -> dict[str, list[Tensor]]:
        """Convert the student's features.

        Args:
            student: (N, C_S, H_S, W_S) for each group and stage; groups without a conversion may be among them.
            teacher: (N, C_T, H_T, W_T), only for their sizes.

        Returns:
            (N, C_T, H_T, W_T) for each group with a conversion, and each of its stages.
        """
        converted = {}
        for group in self.project:
            pairs = zip(student[group], teacher[group], strict=True)
            converted[group] = [self._convert(group, stage, mine, theirs) for stage, (mine, theirs) in enumerate(pairs)]
        return converted

    def _convert(self, group: str, stage: int, feature: Tensor, target: Tensor) -> Tensor:
        feature = self.project[group][stage](feature)  # type: ignore[index]
        if feature.shape[-2:] != target.shape[-2:]:
            feature = F.interpolate(feature, size=target.shape[-2:], mode="bilinear", align_corners=False)
        return feature
