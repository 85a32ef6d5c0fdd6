"""Random crops of photos, and photos as tensors."""

from __future__ import annotations

import cv2
import numpy as np
import torch


def random_window(
    image: np.ndarray, size: int, rng: np.random.RandomState, hflip: bool = False, rot: bool = False, margin: int = 0
) -> np.ndarray:
    """Cut a random square out of an image, and mirror or turn it at random.

    Args:
        image: (H, W, 3).
        size: side of the square in pixels, at most the image's.
        rng: where it lies and how it is turned.
        hflip: mirror it, with probability 1/2.
        rot: turn it upside down and transpose it, with probability 1/2 each.
        margin: pixels more at each side; over the edges the image is mirrored.

    Returns:
        (size + 2 margin, size + 2 margin, 3), perhaps a view.
    """
    top, left = (int(rng.randint(side - size + 1)) for side in image.shape[:2])
    window = _window(image, top - margin, left - margin, size + 2 * margin)
    if hflip and rng.random_sample() < 0.5:
        window = window[:, ::-1]
    if rot and rng.random_sample() < 0.5:
        window = window[::-1]
    if rot and rng.random_sample() < 0.5:
        window = window.transpose(1, 0, 2)
    return window


def _window(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    y0, y1, x0, x1 = max(top, 0), min(top + size, height), max(left, 0), min(left + size, width)
    inside = image[y0:y1, x0:x1]
    border = (y0 - top, top + size - y1, x0 - left, left + size - x1)
    return cv2.copyMakeBorder(inside, *border, cv2.BORDER_REFLECT_101) if any(border) else inside


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Copy (H, W, C) into a contiguous tensor (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
