"""PIQE of images, as published.

Venkatanath et al., "Blind image quality evaluation using perception based features", NCC 2015. Checked against pypiqe,
a port of the MATLAB function (docs/extractors.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_plugins.extractors.gray_images import each_image, mscn_image, round_through, to_gray
from kd_plugins.extractors.piqe_extractor import ACTIVITY

_BLOCK = 16
_SEGMENT = 6
_IMPAIRED = 0.1  # [paper] deviation of an edge segment below which a block shows an artefact


def _mirror(length: int, device: torch.device) -> Tensor:
    """Indices that extend `length` samples to whole blocks, mirrored with the border sample repeated."""
    index = torch.arange(-(-length // _BLOCK) * _BLOCK, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def _variance(x: Tensor) -> Tensor:
    """Unbiased variance along the last dimension; several times faster on a CPU than torch.var."""
    return (x - x.mean(-1, keepdim=True)).square().sum(-1) / (x.shape[-1] - 1)


def _impaired(blocks: Tensor) -> Tensor:
    """Where one of the four edges of (..., 16, 16) has a segment of six values that is nearly constant."""
    edges = torch.stack((blocks[..., 0, :], blocks[..., -1, :], blocks[..., :, 0], blocks[..., :, -1]), dim=-2)
    segments = edges.unfold(-1, _SEGMENT, 1)  # (..., 4, 11, 6)
    return (_variance(segments.movedim(-1, 0).contiguous().movedim(0, -1)) < _IMPAIRED**2).flatten(-2).any(-1)


def _noisy(blocks: Tensor, variance: Tensor) -> Tensor:
    """Where a block's deviation is above twice its distance to that of centre over surround.

    The surround is that of the MATLAB function, which leaves out columns 7 and 9, not 7 and 8 (counted from 0).
    """
    centre = _variance(blocks[..., 7:9].flatten(-2)).sqrt()
    surround = torch.cat((blocks[..., :7], blocks[..., 8:9], blocks[..., 10:]), dim=-1)
    surround = _variance(surround.flatten(-2)).sqrt()
    ratio = (centre / surround).nan_to_num(nan=0.0, posinf=float("inf"))
    deviation = variance.sqrt()
    return deviation > 2 * (deviation - ratio).abs() / torch.maximum(deviation, ratio)


def _score(gray: Tensor) -> Tensor:
    """(N, 1, H, W) gray in 0..255 -> (N,)."""
    rows, cols = _mirror(gray.shape[-2], gray.device), _mirror(gray.shape[-1], gray.device)
    if len(rows) != gray.shape[-2] or len(cols) != gray.shape[-1]:
        gray = gray.index_select(-2, rows).index_select(-1, cols)
    gray = round_through(gray * (255 / gray.amax((-3, -2, -1), keepdim=True).clamp_min(1)))
    maps = mscn_image(gray)[..., : gray.shape[-1]]
    blocks = maps.unflatten(-1, (-1, _BLOCK)).unflatten(-3, (-1, _BLOCK)).transpose(-3, -2)  # (N, 1, i, j, 16, 16)
    blocks = blocks.flatten(1, 3)
    variance = _variance(blocks.flatten(-2))
    with torch.no_grad():
        active = variance > ACTIVITY
        artefact, noise = active & _impaired(blocks), active & _noisy(blocks, variance)
    distortion = (artefact * (1 - variance) + noise * variance).sum(-1)
    return (distortion + 1) / (active.sum(-1) + 1) * 100


def piqe_score(x: Tensor) -> Tensor:
    """PIQE score: the higher, the worse; 100 for an image without any active block (a constant one).

    Differentiable through the blocks' variances; which blocks are active, show artefacts or noise are decisions and
    have no gradient. Rounding passes the gradient straight through.

    Args:
        x: Images (N, 1 or 3, H, W), RGB, in [0, 1], of any size (mirrored to whole 16 x 16 blocks); any floating dtype,
            also under autocast.

    Returns:
        (N,), float32 (float64 for float64); NaN for an image with values that are not finite.

    Raises:
        ValueError: x is of another shape or type, or empty.
    """
    with torch.autocast(x.device.type, enabled=False):
        return each_image(lambda image: _score(to_gray("piqe_score", image)), x)
