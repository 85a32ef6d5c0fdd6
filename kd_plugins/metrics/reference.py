"""Which metrics compare with a clean image."""

from __future__ import annotations

import inspect
from typing import Any

from basicsr.utils.registry import METRIC_REGISTRY


def needs_reference(name: Any) -> bool:
    """Whether the registered metric of this name cannot be had without `img2`; False where there is no such metric."""
    metric = METRIC_REGISTRY.get(name) if isinstance(name, str) and name in METRIC_REGISTRY else None
    second = inspect.signature(metric).parameters.get("img2") if callable(metric) else None
    return second is not None and second.default is second.empty


def without_reference() -> list[str]:
    """The registered metrics that need no clean image."""
    return [name for name, _ in METRIC_REGISTRY if not needs_reference(name)]
