"""A schedule for the weight of a term [ours]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

from kd_plugins.arguments import AtLeast, build, checked, require, signature_block

NotNegative = Annotated[float, AtLeast(0)]


class Fade(NamedTuple):
    """A factor on a term's weight: one value up to a step, another from a later step on, and a curve between them.

    It is a function of the iteration alone, so a resumed run needs no state for it.

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


@checked
def make_fade(
    total_iter: float | None,
    /,
    from_: NotNegative = 1.0,
    to: NotNegative = 0.0,
    start: NotNegative = 0,
    end: NotNegative = 1.0,
    shape: Literal["cosine", "linear"] = "cosine",
) -> Fade:
    """The fade that a `fade: {from: ..., to: ...}` block asks for.

    Args:
        total_iter: the last iteration of the run; None where it is not known.
        from_: the factor on the weight up to `start`.
        to: that from `end` on, another one.
        start: a share of the run (a number with a point, up to 1.0), or an iteration.
        end: the same.
        shape: see `Fade`.

    Raises:
        ValueError: a value out of range, a fade that changes nothing, or a share of a run of unknown length.
    """
    if from_ == to:
        raise ValueError(f"from {from_!r} to {to!r} is no change, expected two different numbers")
    first, last = (_iteration(key, value, total_iter) for key, value in (("start", start), ("end", end)))
    if not first < last:
        raise ValueError(f"from iteration {first:g} to {last:g}, expected `start` before `end`")
    return Fade(from_, to, first, last, shape)


FADE = replace(signature_block(make_fade), name="fade")


def read_fade(block: Any, total_iter: float | None) -> Fade:
    """Read a `fade` block; see `make_fade`, `build`."""
    require(FADE, block, ("fade",))
    return build(make_fade, block, ("fade",), total_iter)


def is_share(value: float) -> bool:
    """Whether a `start` or `end` is a share of the run, and no iteration."""
    return isinstance(value, float) and value <= 1


def _iteration(key: str, value: float, total_iter: float | None) -> float:
    if is_share(value):
        if total_iter is None:
            raise ValueError(f"{key}: {value!r} is a share of `train: total_iter`, which is missing; expected an iteration")
        return value * total_iter
    if value != int(value):
        raise ValueError(f"{key}: {value!r}, expected an iteration (a whole number), or a share of the run up to 1.0")
    if key == "end" and value == 1:
        raise ValueError("end: 1 is the first iteration, expected a later one, or 1.0 for the end of the run")
    return value


def first_without(fades: Sequence[Fade], total_iter: float) -> int | None:
    """The first iteration of a run at which none of these has a weight; None where there is none such.

    Args:
        fades: one for each term.
        total_iter: the last iteration of the run.
    """
    ends = {1, *(math.ceil(fade.end) for fade in fades)}  # between these terms may begin, and none ends
    return next((end for end in sorted(ends) if end <= total_iter and all(fade(end) == 0 for fade in fades)), None)
