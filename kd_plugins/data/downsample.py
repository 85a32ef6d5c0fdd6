"""MATLAB's bicubic resizing: the degradation of super-resolution, and the baseline that a restored image is compared with."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.utils.matlab_functions import imresize

from kd_plugins.arguments import Between, checked
from kd_plugins.data.degradations import Degradation, register, to_8bit


def enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge an image by MATLAB's bicubic, as in the benchmarks' tables; rounded to 8 bits.

    Args:
        image: (h, w, 3) or (h, w), uint8.
        height: of the result.
        width: of the result. Where the sides grow by different factors, the kernel is MATLAB's and the border is not.

    Returns:
        (height, width, 3) or (height, width), uint8.
    """
    image, factor = image.astype(np.float32) / 255, height / image.shape[0]
    if factor == width / image.shape[1] and min(image.shape[:2]) >= 4:
        return _rounded(np.asarray(imresize(image, factor)))
    planes = torch.from_numpy(image.reshape(*image.shape[:2], -1)).permute(2, 0, 1)[None]
    grown = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)[0]  # without: another kernel
    return _rounded(grown.permute(1, 2, 0).numpy().reshape(height, width, *image.shape[2:]))


def _rounded(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


@register("downsample")
@checked
@dataclasses.dataclass
class Downsample(Degradation):
    """MATLAB's antialiased bicubic, as the benchmarks' low-resolution images were made; the result is rounded to 8 bits.

    Args:
        scale: How many times smaller each side gets.
    """

    scale: Annotated[int, Between(1, 16)] = 4

    @property
    def margin(self) -> int:
        """Half the kernel, which is 4 pixels of the result wide."""
        return 2 * self.scale

    @property
    def factor(self) -> int:
        """The scale."""
        return self.scale

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`Degradation`."""
        return to_8bit(np.asarray(imresize(image, 1 / self.scale)))
