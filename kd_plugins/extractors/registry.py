"""The registry of extractors, and how one is built from its option block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import Registry
from torch import nn

from kd_plugins.arguments import Named, build

EXTRACTOR_REGISTRY = Registry("extractor")
EXTRACTOR = Named("extractor", EXTRACTOR_REGISTRY)
"""What the block of an extractor may hold: `extractor: Annotated[Mapping[str, Any], EXTRACTOR]`."""


def build_extractor(opt: Mapping[str, Any]) -> nn.Module:
    """Build a registered extractor.

    Args:
        opt: ``{'type': name, **arguments}``, as it stands in an option file.

    Raises:
        ValueError: see `build`.
        FileNotFoundError: its weights are not there.
    """
    return build(EXTRACTOR, opt, ("extractor",))
