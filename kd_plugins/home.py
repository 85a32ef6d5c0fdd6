"""Paths that begin with `~`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with the home that its `~` stands for; where there is none (`~nobody`) the path stays, and nothing is found there.

    `Path.expanduser` would raise a RuntimeError.

    Raises:
        FileNotFoundError: an empty text, which `Path` would take for the folder here.
    """
    if not os.fspath(path):
        raise FileNotFoundError("'', expected a path")
    return Path(os.path.expanduser(path))


def expand_in(block: Mapping[Any, Any], keys: Iterable[str]) -> dict[str, str]:
    """The paths that stand after some keys of a block, as texts: BasicSR tells kinds of data by how they are written."""
    return {key: os.path.expanduser(block[key]) for key in keys if isinstance(block.get(key), str)}


def fault(path: str) -> str:
    """What is wrong with a path whose home there is not; empty for any other text."""
    if not path.startswith("~") or os.path.expanduser(path) != path:
        return ""
    return f"{path!r}, {path.partition('/')[0]} is the home of no user here"
