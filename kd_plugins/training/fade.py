"""How the weight of a term goes through a run [ours]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kd_plugins.messages import nearest

SHAPES = ("cosine", "linear")
DEFAULTS: Mapping[str, Any] = {"from": 1.0, "to": 0.0, "start": 0, "end": 1.0, "shape": "cosine"}
"""The keys of `fade: {...}`, with their defaults."""


class Fade(NamedTuple):
    """A factor on a term's weight: one value up to a step, another from a later step on, and a curve between them.

    It is a function of the iteration alone, so a run that goes on knows it.

    Attributes:
        first: the factor up to `start`.
        last: the factor from `end` on.
        start: an iteration.
        end: an iteration, after `start`.
        shape: `linear`, or half a period of a `cosine`.
    """

    first: float
    last: float
    start: float
    end: float
    shape: str = "cosine"

    def __call__(self, iteration: int) -> float:
        """The factor at an iteration."""
        done = min(max((iteration - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.first + (self.last - self.first) * done


def read_fade(block: Any, total_iter: float | None) -> Fade:
    """Read a `fade` block.

    Args:
        block: `from`, `to`: factors on the weight, from 0 up, not the same; `start`, `end`: a share of the run (a number with a
            point, up to 1.0), or an iteration; `shape`.
        total_iter: the last iteration of the run; None where it is not known.

    Raises:
        ValueError: an unknown key, a value out of range, a fade that changes nothing, or a share of a run of unknown length.
    """
    if not isinstance(block, Mapping):
        raise ValueError(f"fade: {block!r}, expected {{from: 1, to: 0, start: 0.5, end: 1.0}} or some of these")
    if unknown := [key for key in block if key not in DEFAULTS]:
        raise ValueError(f"fade: {unknown[0]!r} is no key of it; nearest: {nearest(str(unknown[0]), DEFAULTS)}")
    found = {**DEFAULTS, **block}
    for key in ("from", "to", "start", "end"):
        value = found[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"fade: {key}: {value!r}, expected a number from 0 up")
    if found["shape"] not in SHAPES:
        raise ValueError(f"fade: shape: {found['shape']!r}, expected one of {', '.join(SHAPES)}")
    if found["from"] == found["to"]:
        raise ValueError(f"fade: from {found['from']!r} to {found['to']!r} is no change, expected two different numbers")
    start, end = (_iteration(key, found[key], total_iter) for key in ("start", "end"))
    if not start < end:
        raise ValueError(f"fade: from iteration {start:g} to {end:g}, expected `start` before `end`")
    return Fade(found["from"], found["to"], start, end, found["shape"])


def is_share(value: float) -> bool:
    """Whether a `start` or `end` is a share of the run, and no iteration."""
    return isinstance(value, float) and value <= 1


def _iteration(key: str, value: float, total_iter: float | None) -> float:
    if is_share(value):
        if total_iter is None:
            raise ValueError(f"fade: {key}: {value!r} is a share of `train: total_iter`, which is missing; expected an iteration")
        return value * total_iter
    if value != int(value):
        raise ValueError(f"fade: {key}: {value!r}, expected an iteration (a whole number), or a share of the run up to 1.0")
    if key == "end" and value == 1:
        raise ValueError("fade: end: 1 is the first iteration, expected a later one, or 1.0 for the end of the run")
    return value


def first_without(fades: Sequence[Fade], total_iter: float) -> int | None:
    """The first iteration of a run at which none of these has a weight; None where there is none such.

    Args:
        fades: one for each term.
        total_iter: the last iteration of the run.
    """
    ends = {1, *(math.ceil(fade.end) for fade in fades)}  # between these terms may begin, and none ends
    return next((end for end in sorted(ends) if end <= total_iter and all(fade(end) == 0 for fade in fades)), None)
