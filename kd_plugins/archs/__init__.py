"""Architectures, registered in BasicSR's ARCH_REGISTRY."""

from kd_plugins.archs import nafnet_arch
from kd_plugins.archs.restormer_arch import Restormer

__all__ = ["Restormer", "nafnet_arch"]
