"""The plain feature losses that others are compared with: FitNet's L2 and the channel-wise KL divergence."""

from __future__ import annotations

from typing import Annotated

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import Above, checked
from kd_plugins.losses.output_loss import SpatialKLLoss
from kd_plugins.losses.shapes import require_same_shape


@LOSS_REGISTRY.register()
@checked
class FitNetFeatureLoss(nn.Module):
    """The hint loss of FitNets (Romero et al., arXiv 1412.6550, equation 3): L2 through a learned regressor.

    The regressor is the 1x1 convolution that every feature term gets (`ScaleConversion`); the paper's is as large as its layers
    need. The mean over entries [ours] where the paper has half the sum: its value is C * H * W / 2 times this, so here one weight
    serves features of any size.

    Args:
        loss_weight: Weight of the term.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the features of one stage.

        Args:
            student: (N, C, H, W), at the teacher's scale.
            teacher: (N, C, H, W).

        Returns:
            A scalar, float32 or float64.

        Raises:
            ValueError: The shapes differ.
        """
        require_same_shape(self, student, teacher)
        dtype = torch.promote_types(student.dtype, torch.float32)  # bf16 squares and sums to three digits
        return self.loss_weight * (student.to(dtype) - teacher.to(dtype)).square().mean()


@LOSS_REGISTRY.register()
@checked
class ChannelWiseKLLoss(SpatialKLLoss):
    """Channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256): each channel a distribution over its positions.

        tau² / C * sum over channels of KL(softmax(T_c / tau) || softmax(S_c / tau)), averaged over samples

    `SpatialKLLoss` times tau², which keeps the size of the gradient whatever tau is. Where the differences are small beside tau
    it is half their variance, channel by channel: nearly an L2 loss that does not see a channel's mean. For features and images.

    Args:
        loss_weight: Weight of the term.
        tau: Temperature, in units of the features. 4 is that of the authors' code; the features of a Restormer (root mean square
            0.1) need one of their own size for more than an L2 loss.

    Raises:
        ValueError: tau is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, tau: Annotated[float, Above(0)] = 4.0) -> None:
        super().__init__(loss_weight, tau)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two features or two images.

        Args:
            student: (N, C, H, W), at the teacher's scale.
            teacher: (N, C, H, W).

        Returns:
            A scalar, in float32 or better.

        Raises:
            ValueError: The shapes differ.
        """
        return self.tau**2 * super().forward(student, teacher)
