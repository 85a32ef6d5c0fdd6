"""Images as files have them: any kind and depth in, the same kind and depth out, with what the file says beside the pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from kd_plugins.deploy.png import KEPT, Chunk, chunks_of, read_chunks, write_png

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
_ORIENTATION, _EXIF, _SIZE_IN_EXIF, _XMP = 0x112, 0x8769, (0xA002, 0xA003), 700
_TIFF_WORDS = (270, 271, 272, 306, 315, 33432)  # description, maker, model, time, author, copyright
_PLAIN = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
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


# ------------------------------------------------------------------------------------------------ reading


def read_picture(path: Path) -> Picture:
    """Read an image.

    Raises:
        ValueError: it cannot be read, or it is none of gray or RGB, of 8 or 16 bits, of one frame; the message does not name it.
    """
    try:
        data = path.read_bytes()
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(data)
        return _read_other(data)
    except UnidentifiedImageError as error:
        raise ValueError("it is no image, or of a kind that is not known here") from error
    except MemoryError:
        raise
    except Exception as error:  # each library raises its own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot be read: {reason[:200]}") from error


def _read_other(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG with further images behind it
        if kind not in KINDS:
            raise ValueError(f"{kind} is none of {', '.join(KINDS)}")
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise ValueError(f"it has {frames} frames, expected one")
        found = Picture(np.empty(0), None, kind, **_beside(image))
        if kind == "PNG":
            chunks = read_chunks(data)
            found.chunks = [chunk for chunk in chunks if chunk[0] in KEPT]
            if chunks[0][1][8] == 16:
                return _upright(found, _deep_png(data, chunks))
        elif kind == "JPEG":
            found.details = {"subsampling": max(JpegImagePlugin.get_sampling(image), 0)}
        elif kind == "PPM" and isinstance(image.tile[0].args, tuple) and image.tile[0].args[1] > 255:
            raise ValueError("its pixels have 16 bits, which Pillow cuts, expected PPM of 8 bits, or PNG or TIFF")
        elif kind == "WEBP":
            lossless = _is_lossless(data)
            found.details = {"lossless": lossless, "exact": lossless}
        if image.mode not in _PLAIN:
            raise ValueError(f"its pixels are {image.mode}, expected gray or RGB of 8 or 16 bits")
        mode = _PLAIN[image.mode]
        if "transparency" in image.info:
            mode = mode.removesuffix("A") + "A"
        return _upright(found, np.asarray(image if image.mode == mode else image.convert(mode)))


def _deep_png(data: bytes, chunks: list[Chunk]) -> np.ndarray:
    if any(name == b"tRNS" for name, _ in chunks):
        raise ValueError("it has 16 bits and a transparent colour, expected an alpha channel")
    pixels = _decoded(data)
    return pixels[..., [0, 3]] if chunks[0][1][9] == 4 else pixels  # gray and alpha, which OpenCV reads as RGBA


def _decoded(data: bytes) -> np.ndarray:
    """The pixels of a file of 16 bits, by OpenCV."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("OpenCV cannot decode it")
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _beside(image: Image.Image) -> dict[str, Any]:
    info = image.info
    dpi = info.get("dpi")
    return {
        "orientation": _orientation(image.getexif().get(_ORIENTATION)),
        "icc": info.get("icc_profile"),
        "exif": info.get("exif"),
        "xmp": info.get("xmp"),
        "dpi": tuple(float(each) for each in dpi) if dpi else None,
    }


def _orientation(value: Any) -> int:
    return value if value in range(1, 9) else 1


def _is_lossless(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        at += 8 + length + length % 2
    return False


def _read_tiff(data: bytes) -> Picture:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page, count = file.pages[0], len(file.pages)
        if not isinstance(page, tifffile.TiffPage):
            raise ValueError("it has no image")
        if count > 1:
            raise ValueError(f"it has {count} pages, expected one")
        if not _is_plain(page):
            said = f"{tifffile.PHOTOMETRIC(page.photometric).name} of {page.bitspersample} bits"
            said += f" ({tifffile.SAMPLEFORMAT(page.sampleformat).name})"
            raise ValueError(f"its pixels are {said}, expected gray or RGB of 8 or 16 bits (UINT)")
        tags = {tag.code: tag.value for tag in page.tags}
        found = Picture(np.empty(0), None, "TIFF", _orientation(tags.get(_ORIENTATION)), tags.get(34675))
        found.xmp, found.dpi = tags.get(_XMP), page.get_resolution("INCH") if 282 in tags else None
        packed = page.compression != tifffile.COMPRESSION.NONE
        premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        found.details = {
            **({"compression": "zlib", "predictor": True} if packed else {}),
            **({"alpha": "assocalpha"} if premultiplied else {}),
            "extratags": [(code, "s", 0, tags[code], True) for code in _TIFF_WORDS if isinstance(tags.get(code), str)],
        }
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):  # a package that is not asked for: other libraries unpack the same
                raise
        else:
            return _upright(found, np.moveaxis(pixels, 0, -1) if page.planarconfig == 2 and pixels.ndim == 3 else pixels)
        if page.dtype == np.uint8:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image)
        else:
            pixels = _decoded(data)
        if np.atleast_3d(pixels).shape[2] != page.samplesperpixel:
            raise ValueError(f"{tifffile.COMPRESSION(page.compression).name} cannot be unpacked: pip install imagecodecs")
        return _filled(found, pixels)  # both turn it upright by themselves


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether a page's samples are gray or RGB, or become it as JPEG is unpacked, and use all their 8 or 16 bits."""
    is_jpeg = page.compression == tifffile.COMPRESSION.JPEG
    colours = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, *([tifffile.PHOTOMETRIC.YCBCR] if is_jpeg else []))
    full = page.dtype in (np.uint8, np.uint16) and page.bitspersample == 8 * page.dtype.itemsize
    return page.photometric in colours and full


def _upright(picture: Picture, pixels: np.ndarray) -> Picture:
    return _filled(picture, _turned(pixels, picture.orientation))


def _filled(picture: Picture, pixels: np.ndarray) -> Picture:
    """The picture with its pixels, alpha apart."""
    pixels = np.atleast_3d(pixels)
    samples = pixels.shape[2]
    if samples > 4 or not pixels.size:
        raise ValueError(f"its pixels have {samples} samples, expected gray or RGB")
    colours = samples - 1 + samples % 2
    picture.pixels, picture.alpha = pixels[..., :colours], None if samples % 2 else pixels[..., colours]
    return picture


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, out of what a file has."""
    return _flipped(pixels.swapaxes(0, 1) if orientation >= 5 else pixels, orientation)


def _flipped(pixels: np.ndarray, orientation: int) -> np.ndarray:
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


# ------------------------------------------------------------------------------------------------ writing


def write_picture(path: Path, picture: Picture, quality: int = QUALITY) -> None:
    """Write an image whole or not at all.

    Args:
        path: the file; what is there is replaced.
        picture: the image; its `kind` decides on the file's.
        quality: of JPEG and of WebP that was not lossless, from 1 to 100.

    Raises:
        ValueError: the kind has no such images: alpha in JPEG, 16 bits in WebP.
        OSError: it cannot be written.
    """
    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    samples = _flipped(samples, picture.orientation)
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
    tags = [(_ORIENTATION, "H", 1, picture.orientation, True), *picture.details.get("extratags", [])]
    if picture.xmp:
        tags.append((_XMP, "B", len(picture.xmp), picture.xmp, True))
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


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """The name of a file to write, which takes the place of `path` once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
    if upright and _ORIENTATION in found:
        found[_ORIENTATION] = 1
    return found.tobytes()
