"""Losses, registered in BasicSR's LOSS_REGISTRY: each compares a student's tensor with the teacher's and returns a scalar.

A loss is called with (student, teacher), for features once for each stage; one that takes `stride` is told how many image pixels a
feature pixel stands for.
"""

from kd_plugins.losses.contrastive_loss import ContrastiveImageLoss
from kd_plugins.losses.cross_net_loss import CrossNetAttentionLoss
from kd_plugins.losses.dckd_loss import CodeDistributionLoss, ContrastRatioLoss
from kd_plugins.losses.extractor_loss import BrisqueFeatureLoss, ExtractorLoss, PiqeFeatureLoss
from kd_plugins.losses.feature_loss import ChannelWiseKLLoss, FitNetFeatureLoss
from kd_plugins.losses.output_loss import SpatialKLLoss
from kd_plugins.losses.relation_loss import AttentionTransferFeatureLoss, SpatialAffinityFeatureLoss
from kd_plugins.losses.wavelet_loss import GatedWaveletLoss

__all__ = [
    "AttentionTransferFeatureLoss",
    "BrisqueFeatureLoss",
    "ChannelWiseKLLoss",
    "CodeDistributionLoss",
    "ContrastRatioLoss",
    "ContrastiveImageLoss",
    "CrossNetAttentionLoss",
    "ExtractorLoss",
    "FitNetFeatureLoss",
    "GatedWaveletLoss",
    "PiqeFeatureLoss",
    "SpatialAffinityFeatureLoss",
    "SpatialKLLoss",
]
