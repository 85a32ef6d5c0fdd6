"""Compute a metric from its block of the option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from basicsr.metrics import calculate_metric

from kd_plugins.errors import lacks_memory


def score(images: Mapping[str, Any], block: Mapping[str, Any]) -> float:
    """The value of a metric.

    Args:
        images: `img`, and `img2`, the clean one, where there is one: (H, W, C), BGR, in [0, 255].
        block: the `type` and its arguments; `better` says how values compare, and is no argument.

    Returns:
        The value; NaN where its equations have no solution, as NIQE's for a flat image.

    Raises:
        ValueError: the metric does not take such images: NIQE needs 96 pixels each way.
    """
    try:
        return calculate_metric(images, {key: value for key, value in block.items() if key != "better"})
    except np.linalg.LinAlgError:
        return float("nan")
    except (AssertionError, IndexError, RuntimeError, ValueError, cv2.error) as error:
        if lacks_memory(error):
            raise
        shapes = " and ".join("x".join(map(str, image.shape)) for image in images.values())
        raise ValueError(f"{block['type']} of {shapes} pixels: {error}") from error
