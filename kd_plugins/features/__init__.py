"""Features of a running network: taps, pairs of layers, and the conversion to the teacher's scale."""

from kd_plugins.features.image_sizes import fit_sizes
from kd_plugins.features.layer_outputs import measure
from kd_plugins.features.layer_pairs import Pair, find_pairs, propose_pairs
from kd_plugins.features.scale_conversion import ScaleConversion
from kd_plugins.features.stages import Stages, find_stages
from kd_plugins.features.taps import EarlyStop, FeatureTaps, TapError
from kd_plugins.features.teacher_extractor import TeacherExtractor

__all__ = [
    "EarlyStop",
    "FeatureTaps",
    "Pair",
    "ScaleConversion",
    "Stages",
    "TapError",
    "TeacherExtractor",
    "find_pairs",
    "find_stages",
    "fit_sizes",
    "measure",
    "propose_pairs",
]
