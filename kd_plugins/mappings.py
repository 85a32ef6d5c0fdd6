"""Looking into option blocks of which nobody has said yet that they are mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def mapping(value: Any, *keys: str) -> Mapping[Any, Any]:
    """What stands after keys, one below the other, if it is a mapping; else an empty one."""
    for key in keys:
        value = mapping(value).get(key)
    return value if isinstance(value, Mapping) else {}


def blocks_in(value: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The mappings in a mapping, by their keys."""
    yield from ((str(key), block) for key, block in mapping(value).items() if isinstance(block, Mapping))
