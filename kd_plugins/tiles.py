"""An image of any size through a network in tiles: they overlap and fade into each other, and one row of them is in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Crop = Callable[[int, int, int, int], Tensor]
"""Top, left, bottom, right -> that part of an image, (N, C, bottom - top, right - left)."""
Tile = int | tuple[int, int] | None
"""The side of a square tile, or height and width of one, at the scale of the input; None for the whole image at once."""


def restore_rows(
    run: Callable[[Tensor], Tensor], crop: Crop, size: tuple[int, int], tile: Tile = None, overlap: int = 32
) -> Iterator[Tensor]:
    """Restore an image in tiles, from top to bottom.

    Tiles are of one size and spread evenly. Of what two neighbours share, the outer quarter on each side is left to the other one,
    since a network knows least at a cut edge; in the half between them they fade into each other.

    Args:
        run: maps (N, C, H, W) to (N, C', scale * H, scale * W).
        crop: gives a part of the image.
        size: its height and width.
        tile: see `Tile`.
        overlap: pixels that neighbouring tiles share at least.

    Yields:
        The rows of the restored image that are finished, (N, C', some, scale * W), one after another.

    Raises:
        ValueError: a tile that is no larger than the overlap.
    """
    (height, tops), (width, lefts) = _grid(size, tile, overlap)
    above: Tensor | None = None  # what the tiles so far add to the rows of the next ones
    for index, top in enumerate(tops):
        tiles = [run(crop(top, left, top + height, left + width)) for left in lefts]
        scale = tiles[0].shape[-1] // width
        rows, columns = (
            _shares([scale * start for start in starts], scale * side, scale * overlap).to(tiles[0])
            for starts, side in ((tops, height), (lefts, width))
        )
        strip = tiles[0].new_zeros(*tiles[0].shape[:2], scale * height, scale * size[1])
        if above is not None:
            strip[..., : above.shape[-2], :] = above
        for left, restored, share in zip(lefts, tiles, columns, strict=True):
            strip[..., scale * left : scale * (left + width)] += restored * rows[index][:, None] * share
        finished = scale * (tops[index + 1] - top if index < len(tops) - 1 else height)
        above = strip[..., finished:, :]
        yield strip[..., :finished, :]


def restore_tiled(run: Callable[[Tensor], Tensor], x: Tensor, tile: Tile = None, overlap: int = 32) -> Tensor:
    """Restore a batch in tiles, see `restore_rows`.

    Args:
        run: maps (N, C, H, W) to (N, C', scale * H, scale * W).
        x: (N, C, H, W).
        tile: see `Tile`.
        overlap: pixels that neighbouring tiles share at least.

    Returns:
        (N, C', scale * H, scale * W).
    """

    def crop(top: int, left: int, bottom: int, right: int) -> Tensor:
        return x[..., top:bottom, left:right]

    return torch.cat(list(restore_rows(run, crop, (x.shape[-2], x.shape[-1]), tile, overlap)), -2)


def count_tiles(size: tuple[int, int], tile: Tile = None, overlap: int = 32) -> int:
    """How many tiles an image of a size, height and width, is restored in; see `restore_rows`."""
    return math.prod(len(starts) for _, starts in _grid(size, tile, overlap))


def _grid(size: tuple[int, int], tile: Tile, overlap: int) -> list[tuple[int, list[int]]]:
    """Along both sides: how long a tile is, and where tiles begin."""
    if tile is None:
        return [(side, [0]) for side in size]
    tiles = (tile, tile) if isinstance(tile, int) else tile
    if not 0 <= overlap < min(tiles):
        raise ValueError(f"tile: {min(tiles)}, expected more than the overlap, {overlap}")
    return [(min(along, side), _starts(side, along, overlap)) for along, side in zip(tiles, size, strict=True)]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin along a side."""
    steps = max(0, math.ceil((side - tile) / (tile - overlap)))
    return [round(step * (side - tile) / steps) for step in range(steps + 1)] if steps else [0]


def _shares(starts: list[int], tile: int, overlap: int) -> Tensor:
    """The share that each tile has of its pixels along a side, (tiles, tile); the shares of a pixel have the sum 1."""
    position = torch.arange(tile, dtype=torch.float64)
    unseen = overlap // 4
    ramp = ((position + 0.5 - unseen) / (overlap - 2 * unseen)).clamp(0, 1) if overlap else torch.ones(tile, dtype=torch.float64)
    windows = []
    for index in range(len(starts)):
        before = ramp if index else torch.ones_like(ramp)
        after = ramp.flip(0) if index < len(starts) - 1 else torch.ones_like(ramp)
        windows.append(before * after)
    total = torch.zeros(starts[-1] + tile, dtype=torch.float64)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return torch.stack([window / total[start : start + tile] for start, window in zip(starts, windows, strict=True)])
