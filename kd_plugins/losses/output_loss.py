"""Losses between restored images."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import Above, checked
from kd_plugins.losses.shapes import require_same_shape


@LOSS_REGISTRY.register()
@checked
class SpatialKLLoss(nn.Module):
    """KL divergence between two images, each channel a distribution over its positions.

    SLKD (arXiv 2501.09268) has a KL term at the image level; this form of it is ours: softmax over positions with temperature
    `tau`, KL(teacher || student), averaged over samples and channels. For a small difference d it is about var(d) / (2 tau²):
    tau says how large a difference counts. It does not see a constant offset of a channel: it complements a pixel loss.

    Args:
        loss_weight: weight of the term.
        tau: temperature, in units of the image's range.

    Raises:
        ValueError: tau is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, tau: Annotated[float, Above(0)] = 0.2) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.tau = tau

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two images.

        Args:
            student: (N, C, H, W).
            teacher: (N, C, H, W).

        Returns:
            A scalar, in float32 or better: bf16 cannot hold a softmax over thousands of positions.

        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(self, student, teacher)
        dtype = torch.promote_types(student.dtype, torch.float32)
        log_s = F.log_softmax(student.flatten(2).to(dtype) / self.tau, dim=-1)
        log_t = F.log_softmax(teacher.flatten(2).to(dtype) / self.tau, dim=-1)
        divergence = F.kl_div(log_s, log_t, reduction="sum", log_target=True)
        return self.loss_weight * divergence / (student.shape[0] * student.shape[1])
