"""Degraded copies of a batch, which a model restores into negatives; computed on the batch's device."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.arguments import AtLeast, Range, Share, checked
from kd_plugins.data.degradations import bounds

_MODES = ("area", "bilinear", "bicubic")


@checked
class NegativeInputs:
    """The inputs of DCKD's negatives (arXiv 2412.08939, the authors' code): degraded copies of x, and x itself.

    A copy is blurred, resized, made noisy and resized back, each with its probability. Blur and resize draw one kernel and one
    scale for a whole copy of the batch, noise is drawn for each sample. One thing is ours: gray noise is each sample's own, where
    the authors' code has one pattern for the batch. The random numbers are torch's global ones.

    Args:
        count: how many degraded copies, at least one: on x alone the history model's image is the student's own at the start.
        own: whether x itself is one more.
        noise: probability of noise in a copy.
        sigma: its standard deviation of 255, uniform in [lo, hi] for each sample; clipped to [0, 1] afterwards.
        gray: probability that a sample's noise is the same in all channels.
        blur: probability of a Gaussian blur: odd kernels from 3 to 11 and sigmas from 0.1 to 2, in x and y apart.
        resize: probability of a resize: up by 1 to 1.5 (a quarter of them) or down by 0.5 to 1, and back to size, each by area,
            bilinear or bicubic.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        count: Annotated[int, AtLeast(1)] = 4,
        own: bool = True,
        noise: Share = 1.0,
        sigma: Annotated[Range, AtLeast(0)] = (1.0, 30.0),
        gray: Share = 0.5,
        blur: Share = 0.0,
        resize: Share = 0.0,
    ) -> None:
        self.count = count
        self.own = own
        self.noise = noise
        self.sigma = bounds(sigma)
        self.gray = gray
        self.blur = blur
        self.resize = resize

    def __call__(self, lq: Tensor) -> Tensor:
        """Degrade a batch.

        Args:
            lq: (N, C, h, w) in [0, 1]; not modified.

        Returns:
            (J * N, C, h, w): x itself first, where it is among them, then the copies.
        """
        copies = [self._degraded(lq) for _ in range(self.count)]
        return torch.cat([lq, *copies] if self.own else copies)

    @property
    def total(self) -> int:
        """J, how many negatives there are for a sample."""
        return self.count + self.own

    def _degraded(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        if _happens(self.blur):
            x = _blurred(x)
        resized = _happens(self.resize)
        if resized:
            scale = _uniform(1.0, 1.5) if _happens(0.25) else _uniform(0.5, 1.0)
            x = _resized(x, [max(int(side * scale), 1) for side in size])
        if _happens(self.noise):
            x = self._noisy(x)
        return _resized(x, list(size)) if resized else x

    def _noisy(self, x: Tensor) -> Tensor:
        each = (len(x), 1, 1, 1)
        low, high = self.sigma
        sigma = (low + (high - low) * torch.rand(each, device=x.device)) / 255
        pattern = torch.randn(x.shape, device=x.device)
        if self.gray:
            pattern = torch.where(torch.rand(each, device=x.device) < self.gray, pattern[:, :1], pattern)
        return (x + sigma * pattern).clamp(0, 1).to(x.dtype)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _happens(probability: float) -> bool:
    return probability > 0 and float(torch.rand(())) < probability


def _resized(x: Tensor, size: list[int]) -> Tensor:
    mode = _MODES[int(torch.randint(len(_MODES), ()))]
    return F.interpolate(x, size, mode=mode, align_corners=None if mode == "area" else False)


def _blurred(x: Tensor) -> Tensor:
    for dim in (-2, -1):
        half = int(torch.randint(1, 6, ()))
        places = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
        taps = torch.exp(-places.square() / (2 * _uniform(0.1, 2.0) ** 2))
        shape, pad = ((1, 1, -1, 1), (0, 0, half, half)) if dim == -2 else ((1, 1, 1, -1), (half, half, 0, 0))
        kernel = (taps / taps.sum()).view(shape).expand(x.shape[1], -1, -1, -1)
        x = F.conv2d(F.pad(x, pad, mode="reflect"), kernel, groups=x.shape[1])
    return x
