"""The encoding half of a VQGAN: encoder, quant_conv and codebook, under the published parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, MinLen, checked


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 convolution on the shortcut where the width changes.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        groups: Of the group normalisations.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + out


class AttentionBlock(nn.Module):
    """Attention with one head over all positions, added to its input.

    Args:
        channels: Width.
        groups: Of the group normalisation.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        normed = self.norm(x)
        # One head: (N, 1, positions, channels); the default scale is the published channels ** -0.5.
        q, k, v = (layer(normed).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the size by a strided 3x3 convolution, padded to the right and at the bottom only, as published.

    A side of n pixels becomes floor(n / 2); the window of the last position still covers the last pixel of an odd side.

    Args:
        channels: Width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H // 2, W // 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it, and the way down.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the level.
        blocks: How many residual blocks.
        attention: Whether attention follows each.
        last: The deepest level, which is not halved.
        groups: Of the group normalisations.
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, attention: bool, last: bool, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(out_channels if i else in_channels, out_channels, groups) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(out_channels, groups) for _ in range(blocks if attention else 0))
        self.downsample = None if last else Downsample(out_channels)

    def rest(self, x: Tensor) -> Tensor:
        """What follows the level's first residual block, the halving included."""
        for i, block in enumerate(self.block):
            x = block(x) if i else x
            x = self.attn[i](x) if len(self.attn) else x
        return x if self.downsample is None else self.downsample(x)


class _Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups)
        self.attn_1 = AttentionBlock(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class VQEncoder(nn.Module):
    """The VQGAN's encoder (Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021).

    Args: see `VQTokenizer`.
    """

    def __init__(
        self, ch: int, ch_mult: Sequence[int], num_res_blocks: int, attention_levels: Sequence[int], z_channels: int, groups: int
    ) -> None:
        super().__init__()
        widths = [ch * factor for factor in ch_mult]
        self.conv_in = nn.Conv2d(3, ch, 3, padding=1)
        self.down = nn.ModuleList(
            Level(before, width, num_res_blocks, i in attention_levels, i == len(widths) - 1, groups)
            for i, (before, width) in enumerate(zip([ch, *widths[:-1]], widths, strict=True))
        )
        self.mid = _Middle(widths[-1], groups)
        self.norm_out = _norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def _descend(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The first residual block's output of each level; the last of them is also where the deepest level goes on."""
        x = self.conv_in(x)
        levels: list[Tensor] = []
        for level in self.down:
            x = level.block[0](x)  # type: ignore[index]
            levels.append(x)
            if len(levels) < len(self.down):
                x = level.rest(x)  # type: ignore[operator]
        return levels, x

    def levels(self, x: Tensor) -> list[Tensor]:
        """The output of each level's first residual block, shallow to deep; what lies behind the last is not computed."""
        return self._descend(x)[0]

    def forward(self, x: Tensor, first: int | None = None) -> tuple[list[Tensor], Tensor]:
        """(N, 3, H, W) -> the same levels, and the encoder's output of the `first` images (n, z_channels, H // f, W // f)."""
        levels, x = self._descend(x)
        x = self.mid(self.down[-1].rest(x[:first]))  # type: ignore[operator]
        return levels, self.conv_out(F.silu(self.norm_out(x)))


class _Codebook(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)


Positive = Annotated[int, AtLeast(1)]


@checked
class VQTokenizer(nn.Module):
    """Encoder, quant_conv and codebook of a VQGAN; the decoder is left out, since no loss looks at it.

    The default is the layout of ``vqgan_imagenet_f16_1024``: its ``resolution: 256, attn_resolutions: [16]`` is attention at
    level 4, where 256 pixels have become 16.

    Args:
        ch: Width of the first level.
        ch_mult: Width of each level, over `ch`; between two levels the size is halved, so f = 2 ** (levels - 1).
        num_res_blocks: Residual blocks in each level.
        attention_levels: Which levels (0 is full size) have attention behind their residual blocks.
        z_channels: Width of the encoder's output.
        embed_dim: Length of a code.
        n_embed: Number of codes.
        groups: Of the group normalisations.

    Raises:
        ValueError: An argument out of range.
    """

    def __init__(
        self,
        ch: Positive = 128,
        ch_mult: Annotated[Sequence[int], AtLeast(1), MinLen(1)] = (1, 1, 2, 2, 4),
        num_res_blocks: Positive = 2,
        attention_levels: Annotated[Sequence[int], AtLeast(0)] = (4,),
        z_channels: Positive = 256,
        embed_dim: Positive = 256,
        n_embed: Positive = 1024,
        groups: Positive = 32,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "ch": ch,
            "ch_mult": list(ch_mult),
            "num_res_blocks": num_res_blocks,
            "attention_levels": list(attention_levels),
            "z_channels": z_channels,
            "embed_dim": embed_dim,
            "n_embed": n_embed,
            "groups": groups,
        }
        if any(level >= len(ch_mult) for level in attention_levels):
            raise ValueError(f"VQTokenizer: 'attention_levels' is {list(attention_levels)}, but there are {len(ch_mult)} levels")
        narrow = next((ch * m for m in (1, *ch_mult) if ch * m % groups), None)
        if narrow is not None:
            raise ValueError(f"VQTokenizer: 'groups' is {groups}, which does not divide a level's width, {narrow}")
        self.encoder = VQEncoder(ch, ch_mult, num_res_blocks, attention_levels, z_channels, groups)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.quantize = _Codebook(n_embed, embed_dim)

    @property
    def stride(self) -> int:
        """Pixels of the image for one position of z, on a side."""
        return 2 ** (len(self.arguments["ch_mult"]) - 1)

    def forward(self, x: Tensor, first: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Encode images, not quantised.

        Args:
            x: (N, 3, H, W) in the range that the tokenizer was trained on; H and W at least `stride`.
            first: how many of them, from the first, to make z of; None for all.

        Returns:
            The output of each level's first residual block, shallow to deep, and z, (first, embed_dim, H // stride, W // stride).
        """
        levels, x = self.encoder(x, first)
        return levels, self.quant_conv(x)


def layout_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the `VQTokenizer` that these weights belong to, from their names and shapes.

    The number of normalisation groups leaves no trace in the shapes: it is not among them (32 in all published VQGANs).

    Args:
        weights: By the published names.

    Raises:
        ValueError: A name that the layout cannot be told without is missing, or a width is no multiple of the first.
    """
    try:
        ch = weights["encoder.conv_in.weight"].shape[0]
        found = [re.match(r"encoder\.down\.(\d+)\.(block|attn)\.(\d+)\.", key) for key in weights]
        places = {(int(m[1]), m[2], int(m[3])) for m in found if m}
        levels = 1 + max((level for level, _, _ in places), default=-1)
        widths = [weights[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        codes, dim = weights["quantize.embedding.weight"].shape
        z_channels = weights["encoder.conv_out.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"no {error.args[0]}") from None
    if not widths or any(width % ch for width in widths):
        raise ValueError(f"the levels' widths are {widths}, expected multiples of the first convolution's, {ch}")
    return {
        "ch": ch,
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": 1 + max(block for _, kind, block in places if kind == "block"),
        "attention_levels": sorted({level for level, kind, _ in places if kind == "attn"}),
        "z_channels": z_channels,
        "embed_dim": dim,
        "n_embed": codes,
    }
