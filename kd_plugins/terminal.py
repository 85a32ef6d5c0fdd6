"""What is shown while something takes its time: on a terminal only, by the first process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.status import Status
from tqdm import tqdm

from kd_plugins import distributed


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, leave: bool = False, **settings: Any) -> tqdm:
    """A progress bar over things that are counted.

    Args:
        items: to go over; None where the bar is moved by hand.
        shown: False for none, on a terminal either.
        leave: whether the last of it stays.
        settings: those of tqdm: `desc`, `unit`, `total`, `initial`.
    """
    hidden = True if not shown or distributed.rank() else None  # None: wherever there is no terminal
    return tqdm(items, leave=leave, dynamic_ncols=True, disable=hidden, **settings)


def status(text: str) -> Status:
    """A line that moves, for work that is not counted; its `update` changes the text."""
    return Console(stderr=True, quiet=distributed.rank() != 0).status(text)
