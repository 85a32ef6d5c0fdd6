"""Losses between what two features say of their positions, whatever their channels: attention transfer and spatial affinity."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, checked
from kd_plugins.extractors.nss import full_precision
from kd_plugins.losses.shapes import require_same_shape

# A vector shorter than this part of the sample's root mean square length, or of a root mean square below the second number, counts
# as silent and is not blown up to length 1: the gradient of a dead feature stays bounded [ours].
_SILENT, _SILENT_ABSOLUTE = 1e-2, 1e-4


@LOSS_REGISTRY.register()
@checked
class AttentionTransferFeatureLoss(nn.Module):
    """AT, activation-based attention transfer (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928).

        Q = sum over channels of F², as a vector over the positions;  ||Q_S / ||Q_S|| - Q_T / ||Q_T|| ||²

    averaged over samples. In [0, 2]: it is 2 (1 - cosine). Squared as in the authors' code (the paper writes the norm itself); the
    sum over positions, where their code has the mean, is ours: the value does not shrink as maps grow. Their code's is this over
    H * W, with a weight of 1000.

    The channels need not agree: the student's feature is taken before the conversion. Where sizes differ, both maps are averaged
    down to the smaller one [ours].

    Args:
        loss_weight: Weight of the term.
    """

    reads_conversion = False

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, raw: Tensor | None = None) -> Tensor:
        """Compare the features of one stage.

        Args:
            student: (N, C_T, H, W), at the teacher's scale; not looked at where `raw` is given.
            teacher: (N, C_T, H, W).
            raw: (N, C_S, h, w) the student's feature before the conversion; None where there was none (images).

        Returns:
            A scalar, float32 or float64.

        Raises:
            ValueError: The shapes do not fit.
        """
        pair = _pair(self, student, teacher, raw)
        with full_precision(teacher):
            # the mean: a factor that the normalisation takes out again, and large features do not overflow
            maps = _averaged_down([x.square().mean(1, keepdim=True) for x in pair], None)
            mine, theirs = (_unit(x.flatten(1), 1, _SILENT_ABSOLUTE**2) for x in maps)
            return self.loss_weight * (mine - theirs).square().sum(1).mean()


@LOSS_REGISTRY.register()
@checked
class SpatialAffinityFeatureLoss(nn.Module):
    """FAKD, feature affinity-based distillation (He et al., ICIP 2020, doi 10.1109/ICIP40778.2020.9190917): spatial affinity.

        A = Fᵀ F, each position of F (C, H * W) of length 1 over its channels;  mean |A_S - A_T|

    The channels need not agree: the student's feature is taken before the conversion, as in the authors' code.

    A holds (H * W)² numbers a sample, 17 GB for a feature of 256 x 256, so both features are averaged down first, to at most
    `size` positions a side [ours]; docs/baselines.md has the memory that this saves.

    Args:
        loss_weight: Weight of the term; FAKD's is 10, beside 0.5 of each of two L1 losses on images in [0, 255].
        size: Largest side, in positions; None for whole features.

    Raises:
        ValueError: The size is smaller than 2.
    """

    reads_conversion = False

    def __init__(self, loss_weight: float = 1.0, size: Annotated[int, AtLeast(2)] | None = 32) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.size = size

    def forward(self, student: Tensor, teacher: Tensor, raw: Tensor | None = None) -> Tensor:
        """Compare the features of one stage.

        Args:
            student: (N, C_T, H, W), at the teacher's scale; not looked at where `raw` is given.
            teacher: (N, C_T, H, W).
            raw: (N, C_S, h, w) the student's feature before the conversion; None where there was none (images). Where h x w is not
                H x W, both are averaged down to the smaller [ours].

        Returns:
            A scalar, float32 or float64.

        Raises:
            ValueError: The shapes do not fit.
        """
        pair = _pair(self, student, teacher, raw)
        with full_precision(teacher):
            pooled = _averaged_down(pair, self.size)
            mine, theirs = (_unit(x.flatten(2), 1, _SILENT_ABSOLUTE) for x in pooled)
            with torch.no_grad():
                target = torch.bmm(theirs.mT, theirs)
            # one matrix is kept for the backward pass: the difference
            difference = torch.baddbmm(target, mine.mT, mine, beta=-1)
            return self.loss_weight * difference.abs().mean()


def _pair(loss: nn.Module, student: Tensor, teacher: Tensor, raw: Tensor | None) -> list[Tensor]:
    """The student's own feature and the teacher's, in float32; float64 stays."""
    if raw is None:
        require_same_shape(loss, student, teacher)
        raw = student
    if raw.dim() != 4 or raw.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"{type(loss).__name__}: raw is {tuple(raw.shape)}, expected (N, C_S, h, w) with the N of the teacher's "
            f"{tuple(teacher.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(raw.dtype, teacher.dtype), torch.float32)
    return [raw.to(dtype), teacher.to(dtype)]


def _averaged_down(pair: list[Tensor], size: int | None) -> list[Tensor]:
    """Both averaged to the smaller of their sizes, and to at most `size` a side."""
    height, width = (min(*sides, size or max(sides)) for sides in zip(*(x.shape[-2:] for x in pair), strict=True))
    return [x if x.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width)) for x in pair]


def _unit(x: Tensor, dim: int, silent: float) -> Tensor:
    """Vectors along `dim` over their length.

    Args:
        x: (N, ...).
        dim: The vectors' dimension.
        silent: Root mean square below which a vector is silent in any case.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    typical = length.detach().square().flatten(1).mean(1).sqrt().view(-1, *[1] * (x.dim() - 1))
    return x / length.clamp_min((_SILENT * typical).clamp_min(silent * x.shape[dim] ** 0.5))
