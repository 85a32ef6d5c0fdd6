"""Restored images as a person looks at them: 8 bit, in colour, and where they differ most."""

from __future__ import annotations

import cv2
import numpy as np
from basicsr.utils import tensor2img
from torch import Tensor

Image = np.ndarray
"""(H, W, 3) or (H, W), uint8, BGR as BasicSR's."""


def to_image(batch: Tensor) -> Image:
    """The first image of a batch (N, C, H, W) in [0, 1], as BasicSR's metrics take it; of other than 1 or 3 channels as it is."""
    image = batch[:1].detach().cpu()
    if image.shape[1] in (1, 3):
        return np.asarray(tensor2img([image]))
    return (image[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def in_colour(image: Image) -> Image:
    """With three channels, to be shown: a gray one repeated, of more the first three."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]


def squared_error(image: Image, reference: Image) -> np.ndarray:
    """The squared error of each pixel, mean over channels: (H, W) float32, of values in [0, 1]."""
    difference = (in_colour(image).astype(np.float32) - in_colour(reference)) / 255
    return (difference**2).mean(axis=2)


def worst_window(error: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """The window with the largest sum of an error map, within the image.

    Args:
        error: (H, W).
        height: of the window in pixels; less where the image is smaller.
        width: likewise.

    Returns:
        Top, left, height, width.
    """
    height, width = min(height, error.shape[0]), min(width, error.shape[1])
    sums = cv2.boxFilter(error.astype(np.float64), -1, (width, height), anchor=(0, 0), normalize=False)
    inside = sums[: error.shape[0] - height + 1, : error.shape[1] - width + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), height, width
