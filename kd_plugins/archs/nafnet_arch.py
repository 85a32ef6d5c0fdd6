"""NAFNet by its published name and arguments, for any model of BasicSR: the network itself is spandrel's (MIT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from kd_plugins.arguments import AtLeast, checked


@checked
def NAFNet(  # noqa: N802 (published name)
    img_channel: Annotated[int, AtLeast(1)] = 3,
    width: Annotated[int, AtLeast(1)] = 16,
    middle_blk_num: Annotated[int, AtLeast(0)] = 1,
    enc_blk_nums: Annotated[Sequence[int], AtLeast(0)] = (),
    dec_blk_nums: Annotated[Sequence[int], AtLeast(0)] = (),
) -> nn.Module:
    """Build a NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022); official checkpoints load strictly.

    The network maps (N, img_channel, H, W) in [0, 1], of any size, to the restored image of the same shape, not clipped.

    Args:
        img_channel: channels of the image.
        width: channels of the first level; each level below has twice as many.
        middle_blk_num: blocks at the lowest level.
        enc_blk_nums: blocks of each level of the encoder, from full size downwards.
        dec_blk_nums: blocks of each level of the decoder, from the lowest upwards; as many levels as the encoder.

    Returns:
        spandrel's NAFNet.

    Raises:
        ValueError: a number is out of range, or encoder and decoder differ in their levels.
    """
    if len(enc_blk_nums) != len(dec_blk_nums):
        raise ValueError(
            f"NAFNet: enc_blk_nums: {list(enc_blk_nums)}, dec_blk_nums: {list(dec_blk_nums)}: expected as many levels in the "
            "decoder as in the encoder"
        )
    from spandrel.architectures.NAFNet import NAFNet as SpandrelNAFNet  # slow to import: only where it is asked for

    return SpandrelNAFNet(
        img_channel=img_channel,
        width=width,
        middle_blk_num=middle_blk_num,
        enc_blk_nums=list(enc_blk_nums),
        dec_blk_nums=list(dec_blk_nums),
    )


if "NAFNet" not in ARCH_REGISTRY:  # forks of BasicSR bring their own
    ARCH_REGISTRY.register(NAFNet)
