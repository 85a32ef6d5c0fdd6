"""The way back from codes to an image: needed to train a tokenizer, and by nothing else."""

from __future__ import annotations

from torch import Tensor, nn

from kd_plugins.extractors.vq_encoder import ResidualBlock


class VQDecoder(nn.Module):
    """Codes to an image, lean [ours]: it works at a quarter of the image's size at most, and a pixel shuffle makes the rest.

    Only the encoder is kept, so the decoder gets a small share of the time: most of a VQGAN's is spent at full size.

    Args:
        embed_dim: Length of a code.
        width: At the codes' resolution; halved with every doubling of the size.
        doublings: log2 of the tokenizer's stride, 2 or more.
        groups: Of the group normalisations.
    """

    def __init__(self, embed_dim: int, width: int, doublings: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(embed_dim, width, 3, padding=1), ResidualBlock(width, width, groups)]
        for _ in range(doublings - 2):
            narrower = max(width // 2, groups)
            layers += [nn.Upsample(scale_factor=2), ResidualBlock(width, narrower, groups)]
            width = narrower
        layers += [ResidualBlock(width, width, groups), nn.GroupNorm(groups, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3 * 16, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, z: Tensor) -> Tensor:
        """(N, embed_dim, h, w) -> image (N, 3, h * stride, w * stride), in the range it was trained on."""
        return self.layers(z)
