"""Images as files have them: any kind and depth in, the same kind and depth out, with what the file says beside the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import Image

from kd_plugins.atomic_files import in_place_of
from kd_plugins.deploy.png import Chunk, chunks_of, write_png

KINDS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pnm"),
}
"""The kinds of files, and how their names end; the first is what a file is named that is made anew."""
DEEP = ("PNG", "TIFF")
"""Those that may have 16 bits."""
QUALITY = 95
"""Of JPEG and WebP, from 1 to 100."""
ORIENTATION, _EXIF, _SIZE_IN_EXIF, XMP = 0x112, 0x8769, (0xA002, 0xA003), 700
Image.MAX_IMAGE_PIXELS = None  # Pillow would refuse large images, which are what tiles are for


@dataclass
class Picture:
    """An image, upright, and what its file says beside the pixels.

    Attributes:
        pixels: (H, W, 1 or 3) of uint8 or uint16.
        alpha: (H, W) of the same type; None where it has none.
        kind: a key of `KINDS`.
        orientation: how the file's pixels are turned, as EXIF counts: 1 for upright. It is written as it was read.
        icc, exif, xmp, dpi: as the file has them.
        chunks: of a PNG file, in place of these.
        details: how the file is packed, by the writer's own words.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    kind: str
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    chunks: list[Chunk] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def kind_of(path: Path) -> str | None:
    """The kind of image that a file is by its name."""
    return next((kind for kind, endings in KINDS.items() if path.suffix.lower() in endings), None)


def flipped(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, but for an exchange of height and width."""
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def write_picture(path: Path, picture: Picture, quality: int = QUALITY) -> None:
    """Write an image whole or not at all.

    Args:
        path: the file, in a folder that is there; what is there is replaced.
        picture: the image; its `kind` decides on the file's.
        quality: of JPEG and of WebP that was not lossless, from 1 to 100.

    Raises:
        ValueError: the kind has no such images: alpha in JPEG, 16 bits in WebP.
        OSError: it cannot be written.
    """
    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    samples = flipped(samples, picture.orientation)
    samples = samples.swapaxes(0, 1) if picture.orientation >= 5 else samples
    deep, has_alpha = samples.dtype == np.uint16, picture.alpha is not None
    if deep and picture.kind not in DEEP:
        raise ValueError(f"{picture.kind} has no 16 bits, expected PNG or TIFF")
    if has_alpha and picture.kind not in (*DEEP, "WEBP"):
        raise ValueError(f"{picture.kind} has no alpha, expected PNG, TIFF or WEBP")
    with in_place_of(path) as part, open(part, "wb") as file:
        if picture.kind == "PNG":
            write_png(file, samples, picture.chunks or chunks_of(picture.icc, picture.exif, picture.xmp, picture.dpi))
        elif picture.kind == "TIFF":
            _write_tiff(file, samples, picture)
        else:
            beside = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp, "dpi": picture.dpi}
            beside = {key: value for key, value in beside.items() if value}
            quality = 100 if picture.details.get("lossless") else quality
            image = Image.fromarray(np.ascontiguousarray(samples if samples.shape[2] > 1 else samples[..., 0]))
            image.save(file, picture.kind, quality=quality, **picture.details, **beside)


def _write_tiff(file: BinaryIO, samples: np.ndarray, picture: Picture) -> None:
    tags = [(ORIENTATION, "H", 1, picture.orientation, True), *picture.details.get("extratags", [])]
    if picture.xmp:
        tags.append((XMP, "B", len(picture.xmp), picture.xmp, True))
    tifffile.imwrite(
        file,
        samples if samples.shape[2] > 1 else samples[..., 0],
        photometric="rgb" if samples.shape[2] > 2 else "minisblack",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=[picture.details.get("alpha", "unassalpha")] if picture.alpha is not None else None,
        compression=picture.details.get("compression"),
        predictor=picture.details.get("predictor"),
        iccprofile=picture.icc,
        resolution=picture.dpi,
        resolutionunit="INCH" if picture.dpi else None,
        extratags=tags,
        metadata=None,
        software=False,
    )


def restored(picture: Picture, pixels: np.ndarray) -> Picture:
    """A picture of new pixels, (H, W, as many), with the rest of the old one: alpha resized, and the size in EXIF, where it is."""
    height, width = pixels.shape[:2]
    if picture.pixels.shape[:2] == (height, width):
        return replace(picture, pixels=pixels)
    alpha = picture.alpha
    if alpha is not None:
        alpha = cv2.resize(np.ascontiguousarray(alpha), (width, height), interpolation=cv2.INTER_CUBIC)
    stored = (width, height) if picture.orientation < 5 else (height, width)
    exif = _changed(picture.exif, stored)
    chunks = [(name, _changed(content, stored) or b"" if name == b"eXIf" else content) for name, content in picture.chunks]
    return replace(picture, pixels=pixels, alpha=alpha, exif=exif, chunks=chunks)


def converted(picture: Picture, kind: str) -> Picture:
    """A picture for a file of another kind: upright, and of 8 bits where that kind has no 16."""
    if kind == picture.kind:
        return picture
    pixels, alpha = picture.pixels, picture.alpha
    if picture.details.get("alpha") == "assocalpha":
        raise ValueError(f"its colours are multiplied with alpha, which {kind} has not, expected TIFF")
    if pixels.dtype == np.uint16 and kind not in DEEP:
        pixels, alpha = (None if each is None else np.round(each / 257).astype(np.uint8) for each in (pixels, alpha))
    exif = _changed(picture.exif, upright=True)
    return replace(picture, pixels=pixels, alpha=alpha, kind=kind, orientation=1, exif=exif, chunks=[], details={})


def _changed(exif: bytes | None, size: tuple[int, int] | None = None, upright: bool = False) -> bytes | None:
    """EXIF of an image that is of another size, or turned upright."""
    if exif is None:
        return None
    found = Image.Exif()
    found.load(exif)
    within = found.get_ifd(_EXIF)
    if size and any(tag in within for tag in _SIZE_IN_EXIF):
        within.update(zip(_SIZE_IN_EXIF, size, strict=True))
    if upright and ORIENTATION in found:
        found[ORIENTATION] = 1
    return found.tobytes()
