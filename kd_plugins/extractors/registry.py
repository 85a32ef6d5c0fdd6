"""The registry of extractors, and how one is built from its option block."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import Registry
from torch import nn

EXTRACTOR_REGISTRY = Registry("extractor")


def build_extractor(opt: Mapping[str, Any]) -> nn.Module:
    """Build a registered extractor.

    Args:
        opt: ``{'type': name, **arguments}``, as it stands in an option file.

    Returns:
        The extractor.

    Raises:
        TypeError: ``opt`` is not a mapping.
        KeyError: ``type`` is missing, or no such extractor is registered.
        ValueError: an argument that the extractor does not take, or one it needs and was not given.
    """
    if not isinstance(opt, Mapping):
        raise TypeError(f"extractor: expected a mapping like {{type: BrisqueExtractor}}, got {opt!r}.")
    kwargs = dict(opt)
    known = sorted(EXTRACTOR_REGISTRY.keys())
    if "type" not in kwargs:
        raise KeyError(f"extractor: 'type' is missing in {kwargs!r}; registered: {', '.join(known)}.")
    name = kwargs.pop("type")
    # Not Registry.get: for an unknown name that prints a second, misleading name before it fails.
    if name not in EXTRACTOR_REGISTRY:
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or known
        raise KeyError(f"extractor: no extractor is called {name!r}; nearest: {', '.join(near)}.")
    cls = EXTRACTOR_REGISTRY.get(name)

    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key in kwargs:
        if key not in named and not takes_any:
            near = difflib.get_close_matches(key, named, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(named) or 'nothing'}."
            raise ValueError(f"extractor {name}: unknown argument {key!r} (value {kwargs[key]!r}); {hint}")
    missing = [n for n in named if n not in kwargs and parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"extractor {name}: argument {missing[0]!r} is needed and was not given.")
    return cls(**kwargs)
