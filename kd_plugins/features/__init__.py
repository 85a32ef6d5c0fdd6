"""Features of a running network: taps, pairs of layers, and the conversion to the teacher's scale."""

from kd_plugins.features.pairs import Pair, find_pairs
from kd_plugins.features.scm import ScaleConversion
from kd_plugins.features.taps import FeatureTaps, nearest

__all__ = ["FeatureTaps", "Pair", "ScaleConversion", "find_pairs", "nearest"]
