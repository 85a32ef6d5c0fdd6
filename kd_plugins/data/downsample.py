"""Bicubic downsampling: the degradation of super-resolution."""

from __future__ import annotations

import dataclasses

import numpy as np
from basicsr.utils.matlab_functions import imresize

from kd_plugins.data.degradations import Degradation, check_whole_range, register, to_8bit


@register("downsample")
@dataclasses.dataclass
class Downsample(Degradation):
    """MATLAB's antialiased bicubic, as the benchmarks' low-resolution images were made; the result is rounded to 8 bits.

    Args:
        scale: How many times smaller each side gets.
    """

    scale: int = 4

    def __post_init__(self) -> None:
        """Check the argument."""
        check_whole_range("downsample", "scale", self.scale, 1, 16)

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
