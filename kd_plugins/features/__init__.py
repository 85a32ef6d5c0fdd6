"""Features of a running network: taps, pairs of layers, and the conversion to the teacher's scale."""

from kd_plugins.features.pairs import Pair, find_pairs
from kd_plugins.features.scm import ScaleConversion
from kd_plugins.features.taps import EarlyStop, FeatureTaps, nearest
from kd_plugins.features.teacher_encoder import TeacherExtractor

__all__ = ["EarlyStop", "FeatureTaps", "Pair", "ScaleConversion", "TeacherExtractor", "find_pairs", "nearest"]
