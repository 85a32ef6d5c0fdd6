"""Attention between two networks' features, and the Gaussian kernel distance: the functions of SKD (arXiv 2501.09321)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins import distributed

# What counts as silent at a position, over the teacher's root mean square; and in the feature's own units.
_SILENT, _SILENT_ABSOLUTE = 1e-2, 1e-4
_SMALL = 256  # positions up to which a CPU needs a quarter less time, there and back, when it stores the attention


def gaussian_kernel_distance(student: Tensor, teacher: Tensor, sigma: float) -> Tensor:
    """1 - exp(-d² / (2 sigma²)), averaged over samples and positions.

    d² is the mean over channels of (a - b)², both normalised per position (`unit_positions`) [ours], so that d² is
    2 (1 - cosine), in [0, 4], whatever the number and the scale of the channels: the exponent cannot underflow.

    Args:
        student: (N, C, H, W), float32 or float64.
        teacher: (N, C, H, W), likewise.
        sigma: Width of the kernel, in units of d; above 0.

    Returns:
        A scalar in [0, 1).
    """
    silent = silent_square(teacher)
    return unit_kernel_distance(unit_positions(student, silent), unit_positions(teacher, silent), sigma)


def unit_kernel_distance(student: Tensor, teacher: Tensor, sigma: float) -> Tensor:
    """`gaussian_kernel_distance` of normalised features; of several students, (B, N, C, H, W), one distance each."""
    return -torch.expm1((student - teacher).square().mean(-3) / (-2 * sigma**2)).mean((-3, -2, -1))


def unit_positions(x: Tensor, silent: Tensor | float = 0.0) -> Tensor:
    """A feature over its root mean square over channels, position by position.

    Args:
        x: (..., C, H, W).
        silent: Added to the mean squares.

    Returns:
        As x, of root mean square 1 at each position that is not silent.
    """
    return x * unit_scale(x, silent)


def unit_scale(x: Tensor, silent: Tensor | float = 0.0, channels: int = -3) -> Tensor:
    """What `unit_positions` multiplies a feature by.

    Args:
        x: of any shape.
        silent: Added to the mean squares.
        channels: The dimension of the channels.

    Returns:
        As x, one channel.
    """
    return torch.rsqrt(x.square().mean(channels, keepdim=True) + silent)


def silent_square(teacher: Tensor) -> Tensor:
    """The mean square below which a position counts as silent and is not blown up to 1: a dead student's gradient stays bounded.

    Args:
        teacher: (N, C, H, W).

    Returns:
        A scalar: the square of a hundredth of the teacher's root mean square, over all samples (of all processes) and positions.
    """
    return (_SILENT**2 * distributed.all_reduce_mean(teacher.square().mean())).clamp_min(_SILENT_ABSOLUTE**2)


def channel_attention(query: Tensor, key: Tensor, value: Tensor, divisor: Tensor | float) -> tuple[Tensor, Tensor]:
    """softmax(query keyᵀ / lambda, over the key's channels) value: each teacher channel asks the student's channels.

    Args:
        query: (N, C_T, H, W), the teacher's.
        key: (N, C_S, H, W), the student's.
        value: (N, C_S, H, W), the student's.
        divisor: lambda.

    Returns:
        The answer (N, C_T, H, W), and the attention (N, C_T, C_S), its rows summing to 1.
    """
    attention = torch.softmax(torch.bmm(query.flatten(2), key.flatten(2).transpose(1, 2)) / divisor, dim=-1)
    return torch.bmm(attention, value.flatten(2)).view_as(query), attention


def spatial_attention(query: Tensor, key: Tensor, value: Tensor, divisor: Tensor | float, window: int | None) -> Tensor:
    """value softmax(queryᵀ key / lambda, over the key's positions)ᵀ: each teacher position asks the student's positions.

    A map larger than the window is parted into windows and a position sees its own window only [ours]. A side that the window
    does not divide is parted into the fewest windows that fit, their lengths differing by at most 1 (33 at window 16: 11, 11, 11):
    every position is in one window, and none is made up. The attention itself is
    stored within small windows on a CPU alone.

    Args:
        query: (N, C, H, W), the teacher's.
        key: (N, C, H, W), the student's.
        value: (N, C, H, W), the student's.
        divisor: lambda.
        window: Largest side of a window in positions; None for the whole map.

    Returns:
        (N, C, H, W).
    """
    query = query / divisor
    if not value.is_cuda and is_small(value, window):
        q, k, v = (x.flatten(2) for x in (query, key, value))  # one window, as it lies
        return torch.bmm(v, torch.softmax(torch.bmm(q.mT, k), dim=-1).mT).view_as(value)
    columns = window_runs(value.shape[-1], window)
    rows = []
    for top, down, height in window_runs(value.shape[-2], window):
        parts = []
        for left, across, width in columns:
            region = (..., slice(top, top + down * height), slice(left, left + across * width))
            q, k, v = (_to_windows(x[region], height, width) for x in (query, key, value))
            parts.append(_from_windows(_attend(q, k, v), down, height, width))
        rows.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-2)


def is_small(x: Tensor, window: int | None) -> bool:
    """Whether a feature is one window, and so small that attention between its positions may be stored."""
    return x.shape[-2:].numel() <= _SMALL and max(x.shape[-2:]) <= (window or _SMALL)


def window_runs(side: int, window: int | None) -> list[tuple[int, int, int]]:
    """Part a side into the fewest windows that fit, of at most two lengths that differ by 1.

    Args:
        side: Length in positions.
        window: Largest length of a window; None for one window.

    Returns:
        One or two runs of windows of equal length: (start, number of windows, length).
    """
    count = -(-side // min(window or side, side))
    short, longer = divmod(side, count)
    runs = [(0, longer, short + 1), (longer * (short + 1), count - longer, short)]
    return [run for run in runs if run[1]]


def _to_windows(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) to (N, windows, positions of a window, C), contiguous, as the kernels that do not store the attention ask."""
    x = x.unflatten(-1, (-1, width)).unflatten(2, (-1, height))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2).contiguous()


def _from_windows(x: Tensor, down: int, height: int, width: int) -> Tensor:
    """What `_to_windows` made, back to (N, C, H, W)."""
    x = x.unflatten(2, (height, width)).unflatten(1, (down, -1))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention within windows (N, windows, positions, C); lambda is in the query already."""
    if not value.is_cuda and query.shape[-2] <= _SMALL:
        return torch.softmax(query @ key.transpose(-1, -2), dim=-1) @ value
    channels = value.shape[-1]
    if value.is_cuda and channels % 8:
        # the kernels that do not store the attention ask for aligned channels; zeros add nothing to a dot product
        query, key, value = (F.pad(x, (0, -channels % 8)) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :channels]
