"""The parts of CrossNetAttentionLoss against their formulas."""

import math

import pytest
import torch
from cross_net import exact, features, plain_channel, plain_spatial

from kd_plugins.losses.cross_net_attention import channel_attention, gaussian_kernel_distance, spatial_attention, window_runs


def test_kernel_distance_by_hand():
    # two channels, one position: (3, 4) and (4, 3) have the cosine 24/25, so d² = 2/25
    a, b = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 1) for x in ([3.0, 4.0], [4.0, 3.0]))
    assert gaussian_kernel_distance(a, b, 0.5).item() == pytest.approx(1 - math.exp(-0.08 / 0.5), rel=1e-3)
    # opposite: d = 2; orthogonal: d² = 2; second position equal
    assert gaussian_kernel_distance(-b, b, 1.0).item() == pytest.approx(1 - math.exp(-2), rel=1e-3)
    x, y = (torch.tensor(v, dtype=torch.float64).view(1, 2, 1, 2) for v in ([[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]]))
    assert gaussian_kernel_distance(x, y, 1.0).item() == pytest.approx((1 - math.exp(-1)) / 2, rel=1e-3)


def test_kernel_distance_ignores_scale_and_the_number_of_channels():
    student, teacher, _ = features()
    once = gaussian_kernel_distance(student, teacher, 0.85)
    exact(gaussian_kernel_distance(student.repeat(1, 5, 1, 1), teacher.repeat(1, 5, 1, 1), 0.85), once)
    scaled = gaussian_kernel_distance(1000 * student, 1000 * teacher, 0.85)
    torch.testing.assert_close(scaled, once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [(9, 7), (16, 16), (16, 5), (1, 3)], ids=str)
def test_spatial_attention_equals_the_plain_formula_where_the_window_covers_the_map(size):
    t, s, v = features(c_s=6, height=size[0], width=size[1])
    expected = plain_spatial(t, s, v, 1.7).view_as(t)
    for window in (None, 16, max(size)):
        exact(spatial_attention(t, s, v, 1.7, window), expected)


@pytest.mark.parametrize(("size", "window"), [((9, 7), 4), ((8, 8), 4), ((33, 20), 16), ((17, 3), 16), ((5, 6), 1)], ids=str)
def test_windows_are_plain_attention_each_and_cover_every_position_once(size, window):
    t, s, v = features(c_s=6, height=size[0], width=size[1])
    answer = spatial_attention(t, s, v, 1.3, window)
    rows, columns = (
        [
            slice(start + i * length, start + (i + 1) * length)
            for start, count, length in window_runs(side, window)
            for i in range(count)
        ]
        for side in size
    )
    seen = torch.zeros(size)
    for row in rows:
        for column in columns:
            cut = (..., row, column)
            seen[row, column] += 1
            assert max(seen[row, column].shape) <= window
            exact(answer[cut].flatten(2), plain_spatial(t[cut], s[cut], v[cut], 1.3))
    assert (seen == 1).all()


@pytest.mark.parametrize("side", range(1, 70))
def test_window_lengths_differ_by_one_at_most(side):
    runs = window_runs(side, 16)
    lengths = [length for _, count, length in runs for _ in range(count)]
    assert sum(lengths) == side and len(lengths) == math.ceil(side / 16)
    assert max(lengths) <= 16 and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("c_s", [1, 4, 6, 11])
def test_channel_attention_equals_the_plain_formula_at_any_number_of_student_channels(c_s):
    _, t, s = features(c_s=c_s)
    answer, attention = channel_attention(t, s, s, math.sqrt(63))
    exact(answer, plain_channel(t, s, s, math.sqrt(63)).view_as(t))
    assert attention.shape == (2, 6, c_s)
    exact(attention.sum(-1), torch.ones(2, 6).double())
