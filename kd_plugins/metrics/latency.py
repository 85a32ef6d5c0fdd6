"""How long networks take: each is warm, and they take turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_plugins.features.layer_outputs import evaluating

RESTORED = 256
"""The side of the restored image that networks are timed at: at a training crop's, calls cost more than what they compute."""
REPEATS, FEWEST_REPEATS = 7, 3
_SECONDS = 1.5  # what one pass of all networks may take; a start-up is not to wait longer than a few of them

_MOST_THREADS = 8  # for each processor


class Latency(NamedTuple):
    """Seconds of one forward pass: the median of some, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float

    def __str__(self) -> str:
        return f"{self.median * 1e3:.1f} ms ({self.fastest * 1e3:.1f} - {self.slowest * 1e3:.1f})"


def take_turns(passes: Sequence[Callable[[], Any]], repeats: int = REPEATS, seconds: float | None = None) -> list[Latency]:
    """Time functions in turns: the first, the second, ..., the first again. A first round warms up and does not count.

    Args:
        passes: each runs one forward pass, and returns when it is done.
        repeats: how often each is timed.
        seconds: after which no further round begins, if each has been timed `FEWEST_REPEATS` times; None for no limit.

    Returns:
        A latency for each.
    """
    rounds: list[list[float]] = []
    for run in passes:
        run()
    end = time.perf_counter() + (math.inf if seconds is None else seconds)
    while len(rounds) < min(repeats, FEWEST_REPEATS) or (len(rounds) < repeats and time.perf_counter() < end):
        rounds.append([_seconds(run) for run in passes])
    return [Latency(statistics.median(times), min(times), max(times)) for times in zip(*rounds, strict=True)]


def time_at(nets: Sequence[nn.Module], x: Tensor, repeats: int = REPEATS, seconds: float | None = None) -> list[Latency]:
    """Time networks on an image, see `take_turns`.

    Args:
        nets: on one device; their modes are left as they were.
        x: the image (1, C, H, W); more than one sample is timed as one pass.
        repeats: as for `take_turns`, like `seconds`.
        seconds: likewise.
    """
    with ExitStack() as modes:
        for net in nets:
            modes.enter_context(evaluating(net))
        return take_turns([partial(run_to_end, net, x) for net in nets], repeats, seconds)


def time_networks(nets: Sequence[nn.Module], x: Tensor, side: int) -> tuple[list[Latency], str]:
    """Time networks at a size that a user restores.

    Args:
        nets: as for `time_at`, as is x.
        x: an image that they take.
        side: of the square image that they are timed at, if they take it and it does not take long; else half of it, a quarter,
            and so on down to x itself.

    Returns:
        A latency for each network, and the size.
    """
    with ExitStack() as modes:
        for net in nets:
            modes.enter_context(evaluating(net))
        for net in nets:
            run_to_end(net, x)
        expected = sum(_seconds(partial(run_to_end, net, x)) for net in nets) / (x.shape[-2] * x.shape[-1])
    while side > max(x.shape[-2:]):
        if expected * side**2 <= _SECONDS:
            try:
                return time_at(nets, F.interpolate(x, (side, side)), seconds=2 * _SECONDS), f"{side}x{side}"
            except (RuntimeError, AssertionError, ValueError):  # too large for the memory, or no size of theirs
                pass
        side //= 2
    return time_at(nets, x, seconds=2 * _SECONDS), "x".join(map(str, x.shape[-2:]))


def run_to_end(net: Callable[[Tensor], Any], x: Tensor) -> None:
    """Run a network, and wait for the device that the image is on."""
    net(x)
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---------------------------------------------------------------------------------------------- what it is measured at


def read_size(value: Any) -> tuple[int, int]:
    """Height and width of an image: 256 (square), '512x768', or [512, 768].

    Raises:
        ValueError: something else.
    """
    parts = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value)) if isinstance(value, (int, str)) else None
    sides = [int(part) for part in parts.groups() if part] if parts else value
    if isinstance(sides, (list, tuple)) and 1 <= len(sides) <= 2 and all(type(side) is int and side > 0 for side in sides):
        return sides[0], sides[-1]
    raise ValueError(f"size: {value!r}, expected pixels: 256, or 512x768 (height x width)")


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute on so many threads of the CPU; None for as many as it does anyway.

    Raises:
        ValueError: more than a process can have, which would end it.
    """
    if count and count > (most := _MOST_THREADS * (os.cpu_count() or 1)):
        raise ValueError(f"threads: {count}, expected at most {most}: there are {os.cpu_count()} processors")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_machine(device: torch.device) -> str:
    """Where networks are timed, in words: 'the CPU (2 threads)', or a GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU ({threads} thread{'s' * (threads > 1)})" if device.type == "cpu" else str(device)
