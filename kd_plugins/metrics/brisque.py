"""BRISQUE as a metric of BasicSR's validation."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from kd_plugins.arguments import AtLeast, checked
from kd_plugins.extractors import brisque_score, load_brisque_model
from kd_plugins.metrics.image_input import to_tensor


@METRIC_REGISTRY.register()  # pyright: ignore[reportOptionalCall]
@checked
def calculate_brisque(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: Annotated[int, AtLeast(0)] = 0,
    input_order: Literal["HWC", "CHW"] = "HWC",
    test_y_channel: bool = False,
    model: str | os.PathLike[str] | None = None,
    range_path: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> float:
    """BRISQUE (TIP 2012), no reference: 0 (best) to 100.

    Args:
        img: The image, BGR, in [0, 255].
        img2: Not used.
        crop_border: Pixels cut off at each side.
        input_order: 'HWC' or 'CHW'.
        test_y_channel: Score the Y channel of YCbCr instead of OpenCV's gray.
        model: Model file or its folder; None: the environment variable KD_BRISQUE_MODEL, then OpenCV's own folders.
        range_path: File of the feature ranges; None: beside the model.
        **kwargs: Not used.

    Returns:
        The score.

    Raises:
        FileNotFoundError: The model cannot be found; the message says where it can be had.
        ValueError: The image cannot be read as one, or is smaller than 4 x 4.
    """
    with torch.no_grad():
        x = to_tensor("calculate_brisque", img, crop_border, input_order, test_y_channel)
        return brisque_score(x, load_brisque_model(model, range_path)).item()
