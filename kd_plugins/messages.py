"""What error messages share: how a wrong value is shown, and which names are near a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def show(value: object) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def show_bytes(count: float) -> str:
    """A size in memory or on a disk."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def nearest(name: object, names: Iterable[object], count: int = 3) -> str:
    """The names closest to a wrong one."""
    found = difflib.get_close_matches(str(name), map(str, names), n=count, cutoff=0.3)
    return ", ".join(found) if found else "none is near"


def choose(name: object, names: Iterable[object]) -> str:
    """What is valid in place of a wrong name: the nearest ones, or all where none is near."""
    names = list(names)
    near = nearest(name, names)
    return f"nearest: {near}" if near != "none is near" else f"expected one of {', '.join(map(str, names)) or 'nothing'}"


def is_misspelt(name: object, names: Iterable[object]) -> bool:
    """Whether an unknown name is so near a known one that it is likely meant."""
    return bool(difflib.get_close_matches(str(name), map(str, names), n=1, cutoff=0.75))
