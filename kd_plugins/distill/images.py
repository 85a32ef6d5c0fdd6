"""The images of a distillation: which are trained on, and which are held out to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from kd_plugins.data.photos import Photo, find_photos
from kd_plugins.home import expand

_SIDE = 512  # of what is measured on: the middle of a held-out image
_HELD_OUT, _MOST_HELD_OUT = 8, 8  # one of so many, at most so many


class Blocks(NamedTuple):
    """The two datasets of an option file, and the scale of a restored image over its input.

    Attributes:
        train: the block of the training data, without what the recipe says (crops, batches).
        val: that of the validation data.
        scale: how many times larger a restored image is; 0 where the data does not say.
        write: writes the list of the training images, and the middle of those that are held out.
    """

    train: dict[str, Any]
    val: dict[str, Any]
    scale: int
    write: Callable[[], None] = lambda: None


def photo_blocks(source: str, degradation: dict[str, Any], factor: int, crop: int, out: Path) -> Blocks:
    """Clean photos that are degraded as they are read; some are held out, and their middle is written into the folder.

    Args:
        source: `builtin` or a folder.
        degradation: its block.
        factor: how many times smaller it makes an image.
        crop: side of a training crop; smaller photos are left out.
        out: the folder of the distillation.

    Raises:
        ValueError, FileNotFoundError: no folder of photos, or fewer than two that are large enough.
    """
    block = {"type": "DegradedPhotoDataset", "degradation": degradation}
    if source == "builtin":
        return Blocks({**block, "photos": source}, {**block, "photos": source}, factor)
    photos, _ = _large_enough(find_photos(source, key="--photos"), crop, "--photos")
    train, val = _split(photos)
    lines = _lines(train, source)
    root = {"photos": str(expand(source).resolve()), "meta_info_file": str((out / "train.txt").resolve())}
    held = {"photos": str((out / "val").resolve())}
    return Blocks({**block, **root}, {**block, **held}, factor, lambda: _write(out, lines, val))


def pair_blocks(lq: str, gt: str, crop: int, out: Path) -> Blocks:
    """Degraded images and clean ones of the same names, or of names that differ by an ending (`_x4`).

    Raises:
        ValueError, FileNotFoundError: no such folders; an image without its counterpart; sizes that are no multiple of each other.
    """
    clean, sizes = _large_enough(find_photos(gt, key="--pairs"), crop, "--pairs")
    degraded = {Path(photo.path).stem: photo for photo in find_photos(lq, key="--pairs")}
    template = _template([Path(photo.path).stem for photo in clean], list(degraded))
    lonely = [photo.path for photo in clean if template.format(Path(photo.path).stem) not in degraded]
    if nested := [photo.path for photo in clean if Path(photo.path).parent != expand(gt)]:
        raise ValueError(f"--pairs: {nested[0]} is in a folder of its own, expected all images in {gt} itself")
    if lonely:
        raise ValueError(
            f"--pairs: {lonely[0]} has no counterpart in {lq}, expected images of the same names ({len(lonely)} without)"
        )
    scale = 0
    for photo in clean:
        small, large = _size(degraded[template.format(Path(photo.path).stem)], "--pairs"), sizes[photo.path]
        scale = scale or large[0] // small[0]
        if not scale or large != (small[0] * scale, small[1] * scale):
            like = f"{scale} times as much, as {clean[0].path}" if photo is not clean[0] else "a multiple"
            said = f"{photo.path} is {large[0]}x{large[1]}, its counterpart {small[0]}x{small[1]}"
            raise ValueError(f"--pairs: {said}, expected {like}")
    train, val = _split(clean)
    lines = _lines(train, gt)

    def write() -> None:
        _write(out, lines, [])
        for photo in val:
            counterpart = degraded[template.format(Path(photo.path).stem)].load()
            rows, columns = _middle(counterpart.shape, _SIDE // scale)
            large = (slice(scale * rows.start, scale * rows.stop), slice(scale * columns.start, scale * columns.stop))
            _save(out / "val" / "gt" / f"{photo.name}.png", photo.load()[large])
            _save(out / "val" / "lq" / f"{photo.name}.png", counterpart[rows, columns])

    block = {"type": "PairedImageDataset", "io_backend": {"type": "disk"}}
    roots = {"dataroot_gt": str(expand(gt).resolve()), "dataroot_lq": str(expand(lq).resolve())}
    named = {} if template == "{}" else {"filename_tmpl": template}
    held = {"dataroot_gt": str((out / "val" / "gt").resolve()), "dataroot_lq": str((out / "val" / "lq").resolve())}
    listed = {"meta_info_file": str((out / "train.txt").resolve())}
    return Blocks({**block, **roots, **named, **listed}, {**block, **held}, scale, write)


def unlabelled_blocks(source: str, crop: int, out: Path) -> Blocks:
    """Degraded images alone.

    Args:
        source: the folder.
        crop: side of a training crop of an image; smaller ones are left out.
        out: the folder of the distillation.

    Raises:
        ValueError, FileNotFoundError: no folder of images, or fewer than two that are large enough.
    """
    photos, _ = _large_enough(find_photos(source, key="--unlabelled"), crop, "--unlabelled")
    train, val = _split(photos)
    lines = _lines(train, source)
    block = {"type": "DegradedImageDataset", "io_backend": {"type": "disk"}}
    root = {"dataroot_lq": str(expand(source).resolve()), "meta_info_file": str((out / "train.txt").resolve())}
    held = {"dataroot_lq": str((out / "val").resolve())}
    return Blocks({**block, **root}, {**block, **held}, 0, lambda: _write(out, lines, val))


def _large_enough(photos: Sequence[Photo], crop: int, key: str) -> tuple[list[Photo], dict[str, tuple[int, int]]]:
    """The photos that a crop fits into, and the sizes of all."""
    sizes = {photo.path: _size(photo, key) for photo in photos}
    found = [photo for photo in photos if min(sizes[photo.path]) >= crop]
    if len(found) < 2:
        raise ValueError(
            f"{key}: {len(found)} of {len(photos)} images are at least {crop} pixels on each side, expected two or more"
        )
    return found, sizes


def _size(photo: Photo, key: str) -> tuple[int, int]:
    """Width and height, by the file's header alone."""
    try:
        with Image.open(photo.path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{key}: {photo.path} cannot be read as an image ({error})") from None


def _split(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """What is trained on, and what is held out: evenly spread over the folder."""
    count = min(max(len(photos) // _HELD_OUT, 1), _MOST_HELD_OUT)
    held = {(2 * number + 1) * len(photos) // (2 * count) for number in range(count)}
    return [p for n, p in enumerate(photos) if n not in held], [p for n, p in enumerate(photos) if n in held]


def _template(clean: Sequence[str], degraded: Sequence[str]) -> str:
    """How a degraded image's name is made of the clean one's, as BasicSR's `filename_tmpl`."""
    if clean[0] in degraded:
        return "{}"
    endings = sorted((name.removeprefix(clean[0]) for name in degraded if name.startswith(clean[0])), key=len)
    return "{}" + endings[0] if endings else "{}"


def _lines(photos: Sequence[Photo], root: str) -> list[str]:
    """The lines of a `meta_info_file`."""
    lines = [Path(photo.path).relative_to(expand(root)).as_posix() for photo in photos]
    if spaced := [line for line in lines if " " in line]:
        raise ValueError(f"{root}: {spaced[0]!r} has a space in its name, expected none: BasicSR's lists end a name there")
    return lines


def _middle(shape: Sequence[int], side: int = _SIDE) -> tuple[slice, slice]:
    """The rows and columns of the middle of an image."""
    height, width = (min(side, each) for each in shape[:2])
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)


def _write(out: Path, lines: Sequence[str], held: Sequence[Photo]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "train.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for photo in held:
        image = photo.load()
        _save(out / "val" / f"{photo.name}.png", image[_middle(image.shape)])


def _save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tofile(file)
