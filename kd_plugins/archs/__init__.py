"""Architectures, registered in BasicSR's ARCH_REGISTRY."""

from kd_plugins.archs.restormer_arch import Restormer

__all__ = ["Restormer"]
