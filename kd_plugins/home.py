"""Paths that begin with `~`."""

from __future__ import annotations

import os
from pathlib import Path


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with the home that its `~` stands for; where there is none (`~nobody`) the path stays, and nothing is found there.

    `Path.expanduser` would raise a RuntimeError.
    """
    return Path(os.path.expanduser(path))


def fault(path: str) -> str:
    """What is wrong with a path whose home there is not; empty for any other text."""
    if not path.startswith("~") or os.path.expanduser(path) != path:
        return ""
    return f"{path!r}, {path.partition('/')[0]} is the home of no user here"
