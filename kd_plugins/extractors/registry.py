"""The registry of extractors, and how one is built from its option block."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import Registry
from torch import nn

from kd_plugins.arguments import Named, build

EXTRACTOR_REGISTRY = Registry("extractor")
EXTRACTOR = Named("extractor", EXTRACTOR_REGISTRY)
"""What the block of an extractor may hold: `extractor: Annotated[Mapping[str, Any], EXTRACTOR]`."""


def build_extractor(opt: Mapping[str, Any], of_features: bool | None = None) -> nn.Module:
    """Build a registered extractor.

    Args:
        opt: ``{'type': name, **arguments}``, as it stands in an option file.
        of_features: whether it has to describe features (its forward takes `reference`), or else images; None for either.

    Raises:
        ValueError: see `build`; or it is of the other kind.
        FileNotFoundError: its weights are not there.
    """
    extractor = build(EXTRACTOR, opt, ("extractor",))
    if of_features not in (None, _is_of_features(type(extractor))):
        kinds = ("features", "images") if of_features else ("images", "features")
        names = ", ".join(name for name, cls in EXTRACTOR_REGISTRY if _is_of_features(cls) == of_features)
        raise ValueError(
            f"extractor: {type(extractor).__name__} describes {kinds[1]}, expected one that describes {kinds[0]}: {names}"
        )
    return extractor


def _is_of_features(extractor: type) -> bool:
    return "reference" in inspect.signature(extractor.forward).parameters
