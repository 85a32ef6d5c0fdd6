"""Restormer (Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022).

Written from the paper, with the published parameter names, so that the official checkpoints load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from kd_plugins.archs.adapter import pad
from kd_plugins.arguments import AtLeast, Len, MultipleOf, checked

_STRIDE = 8  # three halvings


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over channels of an (N, C, H, W) map.

    Args:
        channels: C.
        with_bias: False leaves out the mean subtraction and the bias (the paper's bias-free kind).
    """

    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.body = nn.ParameterDict({"weight": torch.ones(channels)})  # published: norm1.body.weight, norm1.body.bias
        if with_bias:
            self.body["bias"] = torch.zeros(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over C."""
        x = x.permute(0, 2, 3, 1)  # no copy in channels_last
        weight = self.body["weight"]
        if "bias" in self.body:
            x = F.layer_norm(x, weight.shape, weight, self.body["bias"])
        else:
            x = x * torch.rsqrt(_precise(x).var(-1, unbiased=False, keepdim=True) + 1e-5).to(x.dtype) * weight
        return x.permute(0, 3, 1, 2)


def _precise(x: Tensor) -> Tensor:
    """In float32; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention: attention across channels, linear in the number of pixels (paper, eq. 1)."""

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over channels of (N, C, H, W)."""
        n, c, h, w = x.shape
        heads, qkv = (self.num_heads, c // self.num_heads), self.qkv_dwconv(self.qkv(x))
        last = qkv.is_contiguous(memory_format=torch.channels_last)
        if last:  # taken apart, and below put together, as it lies in memory: neither pass copies a map into the other layout
            parts = qkv.permute(0, 2, 3, 1).view(n, h * w, 3, *heads).unbind(2)
            q, k, v = (part.permute(0, 2, 3, 1) for part in parts)
        else:
            q, k, v = qkv.view(n, 3, *heads, h * w).unbind(1)
        # dividing the small product by the norms equals normalising the two large maps
        norms = _norm(q) * _norm(k).transpose(-2, -1)
        if q.dtype is torch.float16:  # whose range ends at 65504: a sum over a large image's pixels may be beyond it
            scale = _norm(q)
            q, norms = q / scale.to(q.dtype), norms / scale
        attention = (_precise(q @ k.transpose(-2, -1)) / norms * self.temperature).softmax(-1)
        attention = attention.to(v.dtype)
        if last:
            attended = (v.transpose(-2, -1) @ attention.transpose(-2, -1)).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)
        else:
            attended = (attention @ v).reshape(n, c, h, w)
        return self.project_out(attended)


def _norm(x: Tensor) -> Tensor:
    if x.is_cpu and x.dtype is torch.float32 and x.stride(-1) > 1:  # channels last: vector_norm takes up to five times as long
        return x.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).clamp_min(1e-12)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network (paper, eq. 2): one half of the channels gates the other through a GELU."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (N, C, H, W) position by position and by neighbourhood."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        # a dense copy: on a strided half in channels_last, a CPU's GELU leaves the vector units idle (2.5 times slower)
        return self.project_out(F.gelu(gate.clone()) * value)


class RestormerBlock(nn.Module):
    """One transformer block: x + MDTA(LN(x)), then x + GDFN(LN(x))."""

    def __init__(self, dim: int, num_heads: int, expansion: float, bias: bool, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(dim, norm_bias)
        self.attn = MDTA(dim, num_heads, bias)
        self.norm2 = ChannelLayerNorm(dim, norm_bias)
        self.ffn = GDFN(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Refine (N, C, H, W)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Resample(nn.Module):
    """A 3x3 convolution and a pixel (un)shuffle: halves the size at twice the channels, or the other way round."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__()
        shuffle = nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2)
        self.body = nn.Sequential(nn.Conv2d(dim, dim * 2 if up else dim // 2, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2C, H/2, W/2), or to (N, C/2, 2H, 2W) when `up`."""
        return self.body(x)


class _PatchEmbed(nn.Module):
    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)  # whatever `bias` is, as published

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


@ARCH_REGISTRY.register()
@checked
class Restormer(nn.Module):
    """Restormer, with the argument names of the published code.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the restored image.
        dim: width of the first level; the levels below have 2, 4 and 8 times as many channels.
        num_blocks: blocks of levels 1 to 4 (level 4 is the latent).
        num_refinement_blocks: blocks after the decoder, at full size.
        heads: attention heads of levels 1 to 4.
        ffn_expansion_factor: hidden width of the feed-forward network over its input's.
        bias: whether the convolutions inside blocks have a bias.
        LayerNorm_type: 'WithBias' or 'BiasFree' (the denoising checkpoints).
        dual_pixel_task: dual-pixel defocus deblurring: 6 input channels, no residual to the input.

    Raises:
        ValueError: an argument is out of range or a width is not divisible by its heads.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: Annotated[int, AtLeast(2), MultipleOf(2)] = 48,
        num_blocks: Annotated[Sequence[int], AtLeast(0), Len(4, 4)] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Annotated[Sequence[int], AtLeast(1), Len(4, 4)] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",  # noqa: N803 (published name)
        dual_pixel_task: bool = False,
    ) -> None:
        super().__init__()
        _check(dim, heads, inp_channels, out_channels, dual_pixel_task)

        def stage(level: int, blocks: int, width: int) -> nn.Sequential:
            norm_bias = LayerNorm_type == "WithBias"
            return nn.Sequential(
                *(RestormerBlock(width, heads[level], ffn_expansion_factor, bias, norm_bias) for _ in range(blocks))
            )

        self.patch_embed = _PatchEmbed(inp_channels, dim)
        self.encoder_level1 = stage(0, num_blocks[0], dim)
        self.down1_2 = Resample(dim, up=False)
        self.encoder_level2 = stage(1, num_blocks[1], dim * 2)
        self.down2_3 = Resample(dim * 2, up=False)
        self.encoder_level3 = stage(2, num_blocks[2], dim * 4)
        self.down3_4 = Resample(dim * 4, up=False)
        self.latent = stage(3, num_blocks[3], dim * 8)

        self.up4_3 = Resample(dim * 8, up=True)
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder_level3 = stage(2, num_blocks[2], dim * 4)
        self.up3_2 = Resample(dim * 4, up=True)
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = stage(1, num_blocks[1], dim * 2)
        self.up2_1 = Resample(dim * 2, up=True)  # no reduction at level 1: 2 * dim channels up to the output
        self.decoder_level1 = stage(0, num_blocks[0], dim * 2)
        self.refinement = stage(0, num_refinement_blocks, dim * 2)

        self.dual_pixel_task = dual_pixel_task
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias)
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def forward(self, inp_img: Tensor) -> Tensor:
        """Restore a batch of images of any size.

        Args:
            inp_img: (N, inp_channels, H, W), in [0, 1].

        Returns:
            (N, out_channels, H, W), not clipped.
        """
        height, width = inp_img.shape[-2:]
        x = pad(inp_img, -height % _STRIDE, -width % _STRIDE)

        embedded = self.patch_embed(x)
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))

        up3 = self.reduce_chan_level3(torch.cat([self.up4_3(latent), level3], 1))
        up2 = self.reduce_chan_level2(torch.cat([self.up3_2(self.decoder_level3(up3)), level2], 1))
        up1 = torch.cat([self.up2_1(self.decoder_level2(up2)), level1], 1)
        refined = self.refinement(self.decoder_level1(up1))

        restored = self.output(refined + self.skip_conv(embedded)) if self.dual_pixel_task else self.output(refined) + x
        return restored[..., :height, :width]


def _check(dim: int, heads: Sequence[int], inp_channels: int, out_channels: int, dual_pixel: bool) -> None:
    for level, (count, width) in enumerate(zip(heads, (dim, dim * 2, dim * 4, dim * 8), strict=True), 1):
        if width % count:
            raise ValueError(f"Restormer: heads: {list(heads)}: level {level} has {width} channels, not divisible by {count}")
    if not dual_pixel and inp_channels != out_channels:
        raise ValueError(
            f"Restormer: inp_channels: {inp_channels}, out_channels: {out_channels}: the output is added to the input, so they "
            "must agree (unless dual_pixel_task)"
        )


def restormer_arguments(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The arguments of the Restormer that weights are of, read off their names and shapes; None for another network.

    Args:
        weights: by their published names.
    """
    if not {"patch_embed.proj.weight", "reduce_chan_level3.weight", "output.weight"} <= set(weights):
        return None

    def blocks(stage: str) -> int:
        return len({name.split(".")[1] for name in weights if name.startswith(f"{stage}.")})

    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    counts = [blocks(level) for level in levels]
    if not all(counts):
        return None
    dim, channels = weights["patch_embed.proj.weight"].shape[:2]
    hidden = [weights[f"{level}.0.ffn.project_out.weight"].shape[1] for level in levels]
    widths = [dim * 2**level for level in range(len(levels))]
    least = max(each / width for each, width in zip(hidden, widths, strict=True))
    rounded = (math.ceil(least * 10**digits) / 10**digits for digits in range(1, 9))  # the shortest number with these widths
    factor = next((each for each in rounded if [int(width * each) for width in widths] == hidden), least)
    return {
        "inp_channels": int(channels),
        "out_channels": int(weights["output.weight"].shape[0]),
        "dim": int(dim),
        "num_blocks": counts,
        "num_refinement_blocks": blocks("refinement"),
        "heads": [len(weights[f"{level}.0.attn.temperature"]) for level in levels],
        "ffn_expansion_factor": factor,
        "bias": "output.bias" in weights,
        "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in weights else "BiasFree",
        "dual_pixel_task": "skip_conv.weight" in weights,
    }
