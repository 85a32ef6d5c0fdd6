"""Compute a metric from its block of the option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.metrics import calculate_metric


def score(images: Mapping[str, Any], block: Mapping[str, Any]) -> float:
    """The value of a metric.

    Args:
        images: `img`, and `img2`, the clean one, where there is one: (H, W, C), BGR, in [0, 255].
        block: the `type` and its arguments; `better` says how values compare, and is no argument.
    """
    return calculate_metric(images, {key: value for key, value in block.items() if key != "better"})
