"""Pairs: which layer of the student answers which layer of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from kd_plugins.features.taps import refuse_untappable


class Pair(NamedTuple):
    """One stage: the student's layer and the teacher's."""

    student: str
    teacher: str


# the stages of architectures whose layout is known, encoder from the input on, decoder from the bottleneck on
STAGES = {
    "Restormer": {
        "encoder": ("encoder_level1", "encoder_level2", "encoder_level3", "latent"),
        "decoder": ("decoder_level3", "decoder_level2", "decoder_level1"),
    },
}


def find_pairs(opt: Mapping[str, Any] | None, student: nn.Module, teacher: nn.Module) -> dict[str, list[Pair]]:
    """Read the `features` block of an option file.

    Args:
        opt: {group: [[student layer, teacher layer], ...] | 'auto'}; groups are named at will, `encoder` and `decoder` by custom.
            None stands for {encoder: auto, decoder: auto}.
        student: the student network, unwrapped.
        teacher: the teacher network.

    Returns:
        The pairs of each group. The layers themselves are checked by the taps.

    Raises:
        ValueError: a group that is neither a list of pairs nor 'auto', 'auto' where the layout is not known, or a teacher without
            layers.
    """
    refuse_untappable(teacher)
    opt = {"encoder": "auto", "decoder": "auto"} if opt is None else opt
    pairs = {}
    for group, value in opt.items():
        if value == "auto":
            pairs[group] = _auto(group, student, teacher)
        elif isinstance(value, list) and value and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            pairs[group] = [Pair(*map(str, pair)) for pair in value]
        else:
            raise ValueError(f"features:{group}: {value!r}, expected 'auto' or a list of [student layer, teacher layer]")
    return pairs


def _auto(group: str, student: nn.Module, teacher: nn.Module) -> list[Pair]:
    names = type(student).__name__, type(teacher).__name__
    if names[0] != names[1] or group not in STAGES.get(names[0], {}):
        known = ", ".join(f"{name} ({'/'.join(groups)})" for name, groups in STAGES.items())
        raise ValueError(
            f"features:{group}: 'auto' does not know how {names[0]} answers {names[1]} (known: {known}); "
            "write the pairs: [[student layer, teacher layer], ...]"
        )
    return [Pair(layer, layer) for layer in STAGES[names[0]][group]]
