"""Extractors: what a loss compares instead of raw features, and the image metrics made of the same operators."""

from kd_plugins.extractors.brisque_extractor import BrisqueExtractor
from kd_plugins.extractors.brisque_image import BrisqueModel, brisque_features, brisque_score, load_brisque_model
from kd_plugins.extractors.piqe_extractor import PiqeExtractor
from kd_plugins.extractors.piqe_image import piqe_score
from kd_plugins.extractors.registry import EXTRACTOR, EXTRACTOR_REGISTRY, build_extractor
from kd_plugins.extractors.tokenizer import TokenizerExtractor, load_tokenizer, save_tokenizer
from kd_plugins.extractors.vgg import VGGExtractor

__all__ = [
    "EXTRACTOR",
    "EXTRACTOR_REGISTRY",
    "BrisqueExtractor",
    "BrisqueModel",
    "PiqeExtractor",
    "TokenizerExtractor",
    "VGGExtractor",
    "brisque_features",
    "brisque_score",
    "build_extractor",
    "load_brisque_model",
    "load_tokenizer",
    "piqe_score",
    "save_tokenizer",
]
