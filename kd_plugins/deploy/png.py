"""PNG files of 8 and 16 bits with all their chunks: Pillow writes no 16-bit colour, OpenCV no gray with alpha and no profiles."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

Chunk = tuple[bytes, bytes]
"""The name of a chunk, and what is in it."""
KEPT = (b"cHRM", b"gAMA", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"eXIf", b"pHYs", b"tEXt", b"zTXt", b"iTXt")
"""Chunks that say of an image what its restored one shares; the others are of its palette, its time, its frames."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of samples: gray, gray and alpha, RGB, RGBA


def read_chunks(data: bytes) -> list[Chunk]:
    """The chunks of a file.

    Raises:
        ValueError: it ends before its last one, or one is damaged.
    """
    chunks, at = [], len(_SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if len(data) < at + 12:
            raise ValueError("the file ends too early")
        (length,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != _checksum(name, content):
            raise ValueError(f"its chunk {name.decode('latin-1')} is damaged, or the file ends too early")
        chunks.append((name, content))
        at += 12 + length
    return chunks


def write_png(file: BinaryIO, pixels: np.ndarray, beside: Iterable[Chunk] = ()) -> None:
    """Write an image.

    Args:
        file: open for writing.
        pixels: (H, W, samples) of uint8 or uint16; 1 to 4 samples: gray, gray and alpha, RGB, RGBA.
        beside: chunks that go before the pixels.
    """
    height, width, samples = pixels.shape
    size = pixels.dtype.itemsize
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 1  # each byte less that of the pixel before it
    filtered[:, 1:] = rows
    filtered[:, 1 + samples * size :] -= rows[:, : -samples * size]
    header = struct.pack(">IIBBBBB", width, height, 8 * size, _KINDS[samples], 0, 0, 0)
    file.write(_SIGNATURE)
    for name, content in [(b"IHDR", header), *beside, (b"IDAT", zlib.compress(filtered.data)), (b"IEND", b"")]:
        file.write(struct.pack(">I", len(content)) + name)
        file.write(content)
        file.write(_checksum(name, content))


def chunks_of(icc: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None) -> list[Chunk]:
    """The chunks for what an image of another kind says of itself.

    Args:
        icc: its colour profile.
        exif: with or without the `Exif` in front that JPEG has.
        xmp: its XMP packet.
        dpi: pixels in an inch, across and down.
    """
    chunks = []
    if icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    return chunks


def _checksum(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
