"""Where clean photos come from: folders, files, and the colour photographs inside scikit-image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from os import path as osp
from pathlib import Path

import cv2
import numpy as np
from basicsr.utils import rgb2ycbcr

from kd_plugins._compat import IMAGE_SUFFIXES
from kd_plugins.home import expand
from kd_plugins.messages import choose

SUFFIXES = IMAGE_SUFFIXES

BUILTIN: dict[str, dict[str, tuple[str, int | None]]] = {
    "train": {
        "astronaut": ("astronaut", None),
        "coffee": ("coffee", None),
        "hubble_deep_field": ("hubble_deep_field", None),
        "immunohistochemistry": ("immunohistochemistry", None),
        "motorcycle_left": ("stereo_motorcycle", 0),
        "motorcycle_right": ("stereo_motorcycle", 1),
        "retina": ("retina", None),
    },
    "val": {"chelsea": ("chelsea", None), "rocket": ("rocket", None)},
}
"""Every colour photograph inside scikit-image's wheel: name -> (function of skimage.data, index of its result).

None needs a download. The gray ones are left out, and so are the drawings (colour wheel, logo, chess board).
"""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A clean photo that is decoded when asked for.

    Args:
        name: Unique in its list, without a suffix; what results are saved under.
        path: Where it lies; for a built-in one ``builtin/<name>.png``.
        load: Decodes it: (H, W, 3) uint8, RGB.
    """

    name: str
    path: str
    load: Callable[[], np.ndarray]


def find_photos(source: str | Path | Sequence[str | Path], split: str | None = None, key: str = "photos") -> list[Photo]:
    """List the photos that a dataset's ``photos`` option names, in a fixed order.

    Args:
        source: ``builtin``, a folder (searched with its sub-folders), a file, or a list of them.
        split: ``train`` or ``val``, for ``builtin`` only.
        key: The option that names them, for messages.

    Raises:
        FileNotFoundError: If a folder or file does not exist, or holds no image.
        TypeError: If ``source`` is neither a path nor a list.
        ValueError: If ``split`` is not known, or the list is empty.
    """
    if source == "builtin":
        if split not in BUILTIN:
            raise ValueError(f"split is {split!r}; for photos: builtin expected one of: {', '.join(BUILTIN)}")
        return [Photo(name, f"builtin/{name}.png", partial(_load_builtin, *where)) for name, where in BUILTIN[split].items()]
    if isinstance(source, (str, Path)):
        paths = _list_images(expand(source), key)
    elif isinstance(source, Sequence):
        if not source:
            raise ValueError(f"{key} is an empty list; expected builtin, a folder, or a list of folders and files")
        paths = [path for entry in source for path in _list_images(expand(entry), key)]
    else:
        raise TypeError(f"photos is {source!r}; expected builtin, a folder, or a list of folders and files")
    return [Photo(n, str(path), partial(load_image, path)) for n, path in zip(_unique_names(paths), paths, strict=True)]


def listed_photos(root: str | Path, file: str | os.PathLike[str], key: str = "photos") -> list[Photo]:
    """The photos of a folder that a file lists, a line each, by their path in the folder; as BasicSR's `meta_info_file`.

    Args:
        root: The folder.
        file: The list; a line ends at its first space.
        key: The option that names the folder, for messages.

    Raises:
        FileNotFoundError: If the list or a photo in it does not exist.
        ValueError: If the list is empty.
    """
    lines = expand(file).read_text(encoding="utf-8").splitlines()
    return find_photos([Path(root) / line.split(" ")[0] for line in lines if line.strip()], key=key)


def load_image(path: str | Path) -> np.ndarray:
    """Decode an image file: (H, W, 3) uint8, RGB; a gray one has its channel repeated.

    Raises:
        ValueError: If it cannot be decoded.
    """
    # Through bytes, since cv2.imread fails on some paths that are not ASCII.
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if Path(path).stat().st_size else None
    if image is None:
        raise ValueError(f"photo {str(path)!r} cannot be decoded; expected one of: {', '.join(sorted(SUFFIXES))}")
    return np.ascontiguousarray(image[..., ::-1])


def luma(image: np.ndarray) -> np.ndarray:
    """The Y of YCbCr of (H, W, 3) uint8, RGB, as BasicSR's `color: y` has it, in all three channels: a degradation needs them."""
    return np.repeat(rgb2ycbcr(image, y_only=True)[..., None], 3, axis=2)


def _load_builtin(function: str, index: int | None) -> np.ndarray:
    import skimage.data  # slow to import, and only needed here

    image = getattr(skimage.data, function)()
    return np.ascontiguousarray((image if index is None else image[index])[..., :3])


def _list_images(path: Path, key: str) -> list[Path]:
    if osp.isfile(path):
        return [path]
    if not osp.isdir(path):
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        expected = "builtin or a folder" if key == "photos" else "a folder"
        hint = f"; {choose(path.name, near)}" if 0 < len(near) <= 20 else ""
        raise FileNotFoundError(f"{key} names {str(path)!r}, which does not exist; expected {expected}{hint}")
    # Sorted by the parts, so that every platform lists the same order.
    found = sorted((p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()), key=lambda p: p.parts)
    if not found:
        raise FileNotFoundError(f"{key} names {str(path)!r}, which holds no image ({', '.join(sorted(SUFFIXES))})")
    return found


def _unique_names(paths: Sequence[Path]) -> list[str]:
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        # The plain name where it is free; then with its folder; then with a number.
        candidates = [path.stem, f"{path.parent.name}_{path.stem}"]
        name = next((c for c in candidates if c not in taken), None)
        number = 2
        while name is None or name in taken:
            name, number = f"{path.stem}_{number}", number + 1
        taken.add(name)
        names.append(name)
    return names
