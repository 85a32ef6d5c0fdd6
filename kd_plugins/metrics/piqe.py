"""PIQE as a metric of BasicSR's validation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from kd_plugins.arguments import AtLeast, checked
from kd_plugins.extractors import piqe_score
from kd_plugins.metrics.image_input import to_tensor


@METRIC_REGISTRY.register()  # pyright: ignore[reportOptionalCall]
@checked
def calculate_piqe(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: Annotated[int, AtLeast(0)] = 0,
    input_order: Literal["HWC", "CHW"] = "HWC",
    test_y_channel: bool = False,
    **kwargs: Any,
) -> float:
    """PIQE (NCC 2015), no reference: the lower, the better.

    Args:
        img: The image, BGR, in [0, 255].
        img2: Not used.
        crop_border: Pixels cut off at each side.
        input_order: 'HWC' or 'CHW'.
        test_y_channel: Score the Y channel of YCbCr instead of OpenCV's gray.
        **kwargs: Not used.

    Returns:
        The score.

    Raises:
        ValueError: The image cannot be read as one.
    """
    with torch.no_grad():
        return piqe_score(to_tensor("calculate_piqe", img, crop_border, input_order, test_y_channel)).item()
