"""Pairs of layers: which layer of the student corresponds to which layer of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from basicsr.utils import get_root_logger
from torch import nn

from kd_plugins.features.stages import Stages, find_stages, pair_stages
from kd_plugins.features.taps import refuse_untappable


class Pair(NamedTuple):
    """One stage: the student's layer and the teacher's."""

    student: str
    teacher: str


GROUPS = ("encoder", "decoder")
_WRITE = "write the pairs: [[student layer, teacher layer], ...] (`basicsr layers -opt FILE` lists the layers)"


def find_pairs(opt: Mapping[str, Any] | str | None, student: nn.Module, teacher: nn.Module) -> dict[str, list[Pair]]:
    """Read the `features` block of an option file.

    Args:
        opt: {group: [[student layer, teacher layer], ...] | 'auto'}; groups are named at will, `encoder` and `decoder` by custom,
            and these two can be 'auto': the stages that `find_stages` finds, paired by `propose_pairs`, and logged. None and 'auto'
            stand for {encoder: auto, decoder: auto}.
        student: the student network, unwrapped.
        teacher: the teacher network.

    Returns:
        The pairs of each group. The layers themselves are checked by the taps.

    Raises:
        ValueError: a group that is neither a list of pairs nor 'auto', 'auto' for another group or where nothing is found, or a
            teacher without layers.
    """
    refuse_untappable(teacher)
    opt = dict.fromkeys(GROUPS, "auto") if opt is None or opt == "auto" else opt
    if not isinstance(opt, Mapping):
        raise ValueError(f"features: {opt!r}, expected 'auto' or groups: {{encoder: auto, decoder: auto}}")
    proposed: dict[str, list[Pair]] | None = None
    pairs = {}
    for group, value in opt.items():
        if value == "auto":
            if group not in GROUPS:
                raise ValueError(f"features:{group}: 'auto' is known for {' and '.join(GROUPS)}; {_WRITE}")
            proposed = propose_pairs(student, teacher) if proposed is None else proposed
            if not proposed[group]:
                names = f"{type(student).__name__} and {type(teacher).__name__}"
                raise ValueError(f"features:{group}: 'auto' found no stages of {names} that answer each other; {_WRITE}")
            pairs[group] = proposed[group]
            chosen = ", ".join(f"{mine} - {theirs}" for mine, theirs in pairs[group])
            get_root_logger().info(f"features:{group}: auto (student - teacher): {chosen}")
        elif isinstance(value, list) and value and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            pairs[group] = [Pair(*map(str, pair)) for pair in value]
        else:
            raise ValueError(f"features:{group}: {value!r}, expected 'auto' or a list of [student layer, teacher layer]")
    return pairs


def propose_pairs(student: nn.Module, teacher: nn.Module, stages: tuple[Stages, Stages] | None = None) -> dict[str, list[Pair]]:
    """Pair the stages of two networks: U-shaped ones by size, others by depth.

    Args:
        student: the student network, unwrapped.
        teacher: the teacher network.
        stages: their stages, where they are known already.

    Returns:
        The pairs of `encoder` and `decoder`; a list may be empty.

    Raises:
        ValueError: nothing was found in one of them.
    """
    try:
        mine, theirs = stages or (find_stages(student), find_stages(teacher))
    except ValueError as error:
        raise ValueError(f"features: auto: {error}; {_WRITE}") from error
    by_size = not mine.flat and not theirs.flat
    return {group: [Pair(*pair) for pair in pair_stages(getattr(mine, group), getattr(theirs, group), by_size)] for group in GROUPS}
