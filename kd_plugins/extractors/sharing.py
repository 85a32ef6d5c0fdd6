"""Extractors that several losses name alike are built once, so that what one of them computes can serve all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from kd_plugins.extractors.registry import build_extractor

_pool: ContextVar[dict[str, nn.Module] | None] = ContextVar("extractors", default=None)


@contextmanager
def sharing_extractors() -> Iterator[None]:
    """Within this context `shared_extractor` gives the same extractor for equal blocks."""
    token = _pool.set({})
    try:
        yield
    finally:
        _pool.reset(token)


def shared_extractor(opt: Mapping[str, Any]) -> nn.Module:
    """As `build_extractor`, for a frozen extractor of images; one for equal blocks where `sharing_extractors` says so."""
    pool = _pool.get()
    if pool is None:
        return build_extractor(opt, of_features=False)
    key = repr(sorted(opt.items()))
    if key not in pool:
        pool[key] = build_extractor(opt, of_features=False)
    return pool[key]
