"""Validation in tiles: in the words of this project, of NAFNet and of HAT."""

import math

import pytest
import torch
from torch import nn

from kd_plugins import memory
from kd_plugins.training.tiling import Tiling


def seen_by(tiling, x, run=lambda x: x):
    """The sizes that a network gets, and what comes out."""
    sizes = []

    def note(part):
        sizes.append(tuple(part.shape[-2:]))
        return run(part)

    return tiling("student", note, x), sizes


@pytest.mark.parametrize(
    ("opt", "sizes"),
    [
        ({}, {(60, 100)}),
        ({"val": {"tile": 0}}, {(60, 100)}),
        ({"val": {"tile": 40, "tile_overlap": 8}}, {(40, 40)}),
        ({"val": {"tile": 40, "tile_pad": 4}}, {(48, 48)}),
        ({"tile": {"tile_size": 40, "tile_pad": 4}}, {(48, 48)}),
        ({"val": {"grids": True, "crop_size_h": 40, "crop_size_w_ratio": 0.5}}, {(40, 50)}),
        ({"scale": 2, "val": {"grids": True, "crop_size_h": 40, "crop_size_w": 1000}}, {(20, 100)}),
        ({"val": {"tile": "auto"}}, {(60, 100)}),
    ],
)
def test_each_word_for_tiles_gives_those_and_the_image_comes_out_whole(opt, sizes):
    x = torch.rand(1, 3, 60, 100)
    restored, found = seen_by(Tiling(opt), x)
    assert set(found) == sizes and torch.allclose(restored, x)


def test_auto_measures_a_network_once_for_a_large_image(monkeypatch):
    measured = []
    monkeypatch.setattr(memory, "largest_tile", lambda run, device: measured.append(device) or 96)
    tiling = Tiling({"val": {"tile": "auto"}})
    x = torch.rand(1, 3, 300, 40)
    for _ in range(2):
        assert seen_by(tiling, x)[1][0] == (96, 40)
    assert len(measured) == 1


def test_grids_are_nafnets():
    """Its parts and its mean, as NAFNet's `grids` and `grids_inverse` lay them out."""
    x, (height, width), (h, w) = torch.rand(1, 3, 50, 70), (50, 70), (32, 30)
    rows, columns = (height - 1) // h + 1, (width - 1) // w + 1
    steps = math.ceil((height - h) / (rows - 1) - 1e-8), math.ceil((width - w) / (columns - 1) - 1e-8)
    total, count = torch.zeros_like(x), torch.zeros(height, width)
    for i in (min(row * steps[0], height - h) for row in range(rows)):
        for j in (min(column * steps[1], width - w) for column in range(columns)):
            part = x[..., i : i + h, j : j + w]
            total[..., i : i + h, j : j + w] += part - part.mean()
            count[i : i + h, j : j + w] += 1
    tiling = Tiling({"val": {"grids": True, "crop_size_h": h, "crop_size_w": w}})
    assert torch.allclose(tiling("student", lambda part: part - part.mean(), x), total / count, atol=1e-6)


@pytest.mark.parametrize(
    ("opt", "said"),
    [
        ({"val": {"tile": 32}}, "val:tile: 32, expected more than the overlap, 32"),
        ({"val": {"tile": 64, "tile_pad": 4, "tile_overlap": 8}}, "val:tile_pad: stands beside tile_overlap"),
        ({"val": {"tile": 64}, "tile": {"tile_size": 64}}, "val:tile: stands beside tile, expected one of them"),
        ({"val": {"grids": True, "crop_size_h": 64}}, "val:crop_size_w: missing, `grids` needs it"),
    ],
)
def test_tiles_that_do_not_go_together_are_refused(opt, said):
    with pytest.raises(ValueError, match=said):
        Tiling(opt)


def test_student_and_teacher_are_validated_in_tiles(with_validation, build):
    with_validation["val"].update(tile=32, tile_overlap=16)
    model, sizes = build(with_validation), {}
    for role, net in (("student", model.net_g_ema), ("teacher", model.teachers["degraded"].net)):
        assert isinstance(net, nn.Module)
        net.register_forward_pre_hook(lambda net, args, role=role: sizes.setdefault(role, set()).add(tuple(args[0].shape[-2:])))
    images = model.restore({"lq": torch.rand(1, 3, 48, 64), "gt": torch.rand(1, 3, 48, 64)}, True)
    assert sizes == {"student": {(32, 32)}, "teacher": {(32, 32)}}
    assert images["student"].shape == images["teacher"].shape == (1, 3, 48, 64)
