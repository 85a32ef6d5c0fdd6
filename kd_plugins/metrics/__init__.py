"""Metrics, registered with BasicSR."""

from kd_plugins.metrics.brisque import calculate_brisque
from kd_plugins.metrics.lpips import calculate_lpips
from kd_plugins.metrics.piqe import calculate_piqe

__all__ = ["calculate_brisque", "calculate_lpips", "calculate_piqe"]
