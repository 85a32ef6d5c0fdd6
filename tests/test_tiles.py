"""Tiles: a local network makes the same of them as of the whole image, and no seam is to be seen."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_plugins.tiles import restore_rows, restore_tiled


@pytest.fixture(scope="module")
def local():
    """Sees 4 pixels far, and doubles the size."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 12, 7, padding=3), nn.PixelShuffle(2))
    return body.requires_grad_(False)


@pytest.mark.parametrize("size", [(40, 40), (97, 61), (33, 130), (32, 32), (7, 70), (41, 32), (1, 1)])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 16), (40, 23), (33, 16)])
def test_a_local_network_makes_of_tiles_what_it_makes_of_the_whole(local, size, tile, overlap):
    x = torch.rand(2, 3, *size)
    assert torch.allclose(restore_tiled(local, x, tile, overlap), local(x), atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 8, 31])
@pytest.mark.parametrize("size", [(32, 33), (64, 95), (200, 10)])
def test_any_overlap_gives_each_pixel_shares_of_the_sum_one(size, overlap):
    x = torch.rand(1, 1, *size)
    assert torch.allclose(restore_tiled(lambda tile: tile, x, 32, overlap), x, atol=1e-6)


def test_tiles_are_of_one_size_and_none_is_the_whole():
    seen = []
    run = lambda x: seen.append(tuple(x.shape[-2:])) or x  # noqa: E731
    restore_tiled(run, torch.rand(1, 1, 100, 50), 64, 8)
    assert seen == [(64, 50)] * 2
    restore_tiled(run, torch.rand(1, 1, 100, 50))
    assert seen[2:] == [(100, 50)]


def test_what_differs_between_tiles_fades():
    """Each tile is as bright as its number: without fading there would be a step of 1 where two meet."""
    numbers = iter(range(100))
    faded = restore_tiled(lambda x: torch.full_like(x, next(numbers)), torch.zeros(1, 1, 32, 200), 32, 16)[0, 0, 0]
    assert faded.diff().abs().max() < 0.2
    assert faded[0] == 0 and faded[-1] == next(numbers) - 1


def test_finished_rows_come_one_after_another_and_are_no_more_than_a_tile_high():
    x = torch.rand(1, 3, 150, 20)
    asked = []

    def crop(top, left, bottom, right):
        asked.append((top, bottom))
        return x[..., top:bottom, left:right]

    rows = restore_rows(lambda x: F.interpolate(x, scale_factor=2), crop, (150, 20), 32, 8)
    first = next(rows)
    assert len(asked) == 1 and first.shape[-2] <= 64
    assert torch.cat([first, *rows], -2).shape == (1, 3, 300, 40)
    assert max(bottom - top for top, bottom in asked) == 32


def test_a_tile_has_to_be_larger_than_the_overlap():
    with pytest.raises(ValueError, match="tile: 32, expected more than the overlap, 32"):
        restore_tiled(lambda x: x, torch.rand(1, 1, 64, 64), 32, 32)
