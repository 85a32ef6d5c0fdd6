"""How large the images of a dataset are, out of the heads of their files: none is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from os import path as osp
from pathlib import Path
from typing import Any

from PIL import Image

from kd_plugins.data.photos import SUFFIXES
from kd_plugins.home import expand

_MOST = 20_000  # images whose sizes are looked at


def shorter_sides(block: Mapping[Any, Any], scale: int = 1) -> tuple[str, dict[str, int]]:
    """The shorter sides of a dataset's clean images, in pixels, as far as they can be told.

    Args:
        block: of the dataset.
        scale: how many times larger clean images are than degraded ones, where there are such alone.

    Returns:
        The key that names the images, and the sides by name.
    """
    key = next((key for key in ("dataroot_gt", "photos", "dataroot_lq") if isinstance(block.get(key), str)), "")
    factor = scale if key == "dataroot_lq" else 1
    sizes = _sizes(str(expand(block[key])), _listed(block)) if key else ()
    return key, {name: factor * min(size) for name, size in sizes}


def _listed(block: Mapping[Any, Any]) -> set[str] | None:
    """The images that a list names, if there is one that can be read."""
    file = next((block[key] for key in ("meta_info_file", "meta_info") if isinstance(block.get(key), str)), None)
    try:
        lines = expand(file).read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError):  # said elsewhere
        return None
    return {line.split(" ")[0].strip(",") for line in lines} if file else None


def _sizes(root: str, listed: set[str] | None) -> Iterator[tuple[str, tuple[int, int]]]:
    """The sizes of the images of a folder, out of the heads of their files, or of a database, out of its list."""
    if root.endswith(".lmdb"):
        with suppress(OSError, ValueError):  # said elsewhere
            for line in Path(root, "meta_info.txt").read_text(encoding="utf-8").splitlines():
                name, _, rest = line.partition(" (")
                height, width, *_ = (int(number) for number in rest.partition(")")[0].split(","))
                yield name, (height, width)
        return
    names = (osp.relpath(osp.join(folder, name), root) for folder, _, files in os.walk(root) for name in files)
    images = sorted(name for name in names if osp.splitext(name)[1].lower() in SUFFIXES and (listed is None or name in listed))
    for name in images[:: -(-len(images) // _MOST) or 1]:
        with suppress(OSError, ValueError), Image.open(osp.join(root, name)) as image:  # said when it is read
            yield name, image.size
