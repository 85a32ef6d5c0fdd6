"""From BasicSR's way of handing images to metrics to the tensors that the metrics here take."""

from __future__ import annotations

import numpy as np
import torch
from basicsr.metrics.metric_util import reorder_image, to_y_channel
from torch import Tensor


def to_tensor(name: str, img: np.ndarray, crop_border: int = 0, input_order: str = "HWC", test_y_channel: bool = False) -> Tensor:
    """One image as BasicSR's validation gives it, as a tensor.

    Args:
        name: The metric's name, for messages.
        img: (H, W), (H, W, C) or (C, H, W), BGR, in [0, 255].
        crop_border: Pixels cut off at each side.
        input_order: 'HWC' or 'CHW'.
        test_y_channel: Take the Y channel of YCbCr.

    Returns:
        (1, 3, H, W) RGB or (1, 1, H, W), float32 in [0, 1].

    Raises:
        ValueError: The image has another shape, or nothing is left after cropping.
    """
    if img.ndim not in (2, 3):
        raise ValueError(f"{name}: 'img' must have 2 or 3 dimensions, got shape {img.shape}.")
    image = reorder_image(img, input_order=input_order).astype(np.float32)
    if crop_border:
        image = image[crop_border:-crop_border, crop_border:-crop_border]
    if image.shape[-1] not in (1, 3) or image.size == 0:
        raise ValueError(
            f"{name}: expected 1 or 3 channels and some pixels, got shape {img.shape} as {input_order} "
            f"with crop_border {crop_border}."
        )
    if test_y_channel:
        image = to_y_channel(image)
    rgb = image[..., ::-1].transpose(2, 0, 1).copy()
    return torch.from_numpy(rgb).float().div_(255).unsqueeze(0)
