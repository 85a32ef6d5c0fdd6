"""Looking into option blocks of which nobody has said yet that they are mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def mapping(value: Any) -> Mapping[Any, Any]:
    """A value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def blocks_in(value: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The mappings in a mapping, by their keys."""
    yield from ((str(key), block) for key, block in mapping(value).items() if isinstance(block, Mapping))
