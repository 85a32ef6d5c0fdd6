"""Files that are whole or not there: written aside, and put in their place once they are done."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _SUFFIX = ".", ".part"


@contextmanager
def in_place_of(path: Path, *beside: str) -> Iterator[Path]:
    """A place to write a file at, which takes that of `path`, and replaces what is there, if nothing is raised.

    At any moment, also after a power cut, the old file or the new one is there, whole. It is written under its own name in a hidden
    folder beside its place; what a kill leaves of that is removed by the next to write there, or by `remove_leftovers`.

    Args:
        path: the file; its folder has to be there.
        beside: names of further files that are written with it, and take their places just before it does.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(f"{_PREFIX}{path.name}{_SUFFIX}")
    _remove(aside)
    aside.mkdir()
    try:
        yield aside / path.name
        names = [*beside, path.name]
        for name in names:
            with open(aside / name, "rb+") as file:
                os.fsync(file.fileno())
        for name in names:
            os.replace(aside / name, path.with_name(name))
    finally:
        _remove(aside)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in place of `path`, see `in_place_of`."""
    with in_place_of(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_leftovers(*folders: str | Path) -> None:
    """Remove what a kill in the middle of a write left in folders."""
    for folder in map(Path, folders):
        for aside in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            _remove(aside)


def _remove(aside: Path) -> None:
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let a rename survive a power cut, where the file system has a way to."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
