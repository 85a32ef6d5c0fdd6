"""BSRN (Li et al., "Blueprint Separable Residual Network for Efficient Image Super-Resolution", CVPR Workshops 2022).

Written from the paper, with the parameter names of its published checkpoints: what a user's own class file looks like, the
registration in a fork of BasicSR included.
"""

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


class BSConvU(nn.Module):
    """A blueprint separable convolution: 1x1 across channels, then 3x3 in each."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dw = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)

    def forward(self, x):
        return self.dw(self.pw(x))


class ESA(nn.Module):
    """Enhanced spatial attention: a mask from a strided, pooled view of the map."""

    def __init__(self, channels, inner):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv_max = BSConvU(inner, inner)
        self.conv2 = nn.Module()
        self.conv2.pw = nn.Conv2d(inner, inner, 1, bias=False)
        self.conv2.dw = nn.Conv2d(inner, inner, 3, stride=2, groups=inner)
        self.conv3 = BSConvU(inner, inner)
        self.conv3_ = BSConvU(inner, inner)
        self.conv4 = nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        narrow = self.conv1(x)
        view = F.max_pool2d(self.conv2.dw(self.conv2.pw(narrow)), 7, 3)
        view = self.conv3_(F.gelu(self.conv3(F.gelu(self.conv_max(view)))))
        view = F.interpolate(view, x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(view + self.conv_f(narrow)))


class CCALayer(nn.Module):
    """Contrast-aware channel attention: weights from each channel's standard deviation and mean."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.conv_du = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid())

    def forward(self, x):
        contrast = x.std((2, 3), keepdim=True, correction=0) + x.mean((2, 3), keepdim=True)
        return x * self.conv_du(contrast)


class ESDB(nn.Module):
    """Efficient separable distillation block: a part of the channels is kept at each of four steps."""

    def __init__(self, channels):
        super().__init__()
        kept = channels // 2
        for step in "123":
            setattr(self, f"c{step}_d", nn.Conv2d(channels, kept, 1))
            setattr(self, f"c{step}_r", BSConvU(channels, channels))
        self.c4 = BSConvU(channels, kept)
        self.c5 = nn.Conv2d(4 * kept, channels, 1)
        self.esa = ESA(channels, max(channels // 4, 1))
        self.cca = CCALayer(channels, 16 if channels >= 16 else channels)

    def forward(self, x):
        kept, rest = [], x
        for step in "123":
            kept.append(F.gelu(getattr(self, f"c{step}_d")(rest)))
            rest = F.gelu(getattr(self, f"c{step}_r")(rest) + rest)
        kept.append(F.gelu(self.c4(rest)))
        return self.cca(self.esa(self.c5(torch.cat(kept, 1)))) + x


class Upsampler(nn.Module):
    def __init__(self, channels, outputs, upscale):
        super().__init__()
        self.upsampleOneStep = nn.Sequential(nn.Conv2d(channels, outputs * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))

    def forward(self, x):
        return self.upsampleOneStep(x)


@ARCH_REGISTRY.register()
class BSRN(nn.Module):
    def __init__(self, num_in_ch=3, num_feat=64, num_block=8, num_out_ch=3, upscale=4):
        super().__init__()
        self.num_block = num_block
        self.fea_conv = BSConvU(4 * num_in_ch, num_feat)
        for number in range(1, num_block + 1):
            setattr(self, f"B{number}", ESDB(num_feat))
        self.c1 = nn.Conv2d(num_block * num_feat, num_feat, 1)
        self.c2 = BSConvU(num_feat, num_feat)
        self.upsampler = Upsampler(num_feat, num_out_ch, upscale)

    def forward(self, x):
        shallow = self.fea_conv(torch.cat([x] * 4, 1))
        maps, deep = [], shallow
        for number in range(1, self.num_block + 1):
            deep = getattr(self, f"B{number}")(deep)
            maps.append(deep)
        return self.upsampler(self.c2(F.gelu(self.c1(torch.cat(maps, 1)))) + shallow)
