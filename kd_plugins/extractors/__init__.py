"""Extractors: what a loss compares instead of raw features, and the image metrics made of the same operators."""

from kd_plugins.extractors.brisque import BrisqueExtractor
from kd_plugins.extractors.piqe import PiqeExtractor
from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY, build_extractor

__all__ = ['EXTRACTOR_REGISTRY', 'BrisqueExtractor', 'PiqeExtractor', 'build_extractor']
