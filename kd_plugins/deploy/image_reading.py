"""Images out of files of any kind and depth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from kd_plugins.deploy.images import KINDS, ORIENTATION, XMP, Picture, flipped
from kd_plugins.deploy.png import KEPT, Chunk, read_chunks

_TIFF_WORDS = (270, 271, 272, 306, 315, 33432)  # description, maker, model, time, author, copyright
_PLAIN = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}


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
        "orientation": _orientation(image.getexif().get(ORIENTATION)),
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
        found = Picture(np.empty(0), None, "TIFF", _orientation(tags.get(ORIENTATION)), tags.get(34675))
        found.xmp, found.dpi = tags.get(XMP), page.get_resolution("INCH") if 282 in tags else None
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
    return flipped(pixels.swapaxes(0, 1) if orientation >= 5 else pixels, orientation)
