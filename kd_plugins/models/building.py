"""Building what a distillation consists of: the student, its teachers, the layers that are compared, the conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins.features import FeatureTaps, Pair, ScaleConversion, find_pairs, fit_sizes
from kd_plugins.features.layer_outputs import evaluating, example_channels
from kd_plugins.models.dry_run import compare_networks
from kd_plugins.models.student_init import Copied, explicit_student
from kd_plugins.models.terms import OUTPUT, VIEWS, Term, compared
from kd_plugins.teachers import WRONG_ARGUMENTS, Teacher, build_teacher, padded_block, student_block
from kd_plugins.training.precision import Precision

_RESIZED = 1.5
"""A feature that is so many times larger than the other is of another scale, and not padded alone."""
Pairs = Mapping[str, Sequence[Pair]]
"""Pairs of layers by group of the `features` block."""


def build_student(opt: dict[str, Any]) -> nn.Module:
    """Build `network_g`: one of BasicSR's networks, one from the sources of a teacher, or one made of the teacher.

    Args:
        opt: the options of the run; `network_g` becomes the block from which `build_network` builds the same network.

    Raises:
        ValueError: arguments that the network does not take, or see `student_of`.
    """
    block = opt["network_g"] = student_block(explicit_student(opt))
    try:
        return build_network(block)
    except WRONG_ARGUMENTS as error:
        raise ValueError(f"network_g: {block['type']}: {str(error) or type(error).__name__}") from error


def build_discriminator(block: Mapping[str, Any], image: Tensor) -> nn.Module:
    """Build `network_d`.

    Args:
        block: its block.
        image: one like those that it is shown, (1, C, H, W).

    Raises:
        ValueError: arguments that the network does not take, or an image that it does not take.
    """
    try:
        net = build_network(dict(block)).to(image.device)
    except WRONG_ARGUMENTS as error:
        raise ValueError(f"network_d: {block['type']}: {str(error) or type(error).__name__}") from error
    try:
        with evaluating(net):
            net(image)
    except torch.OutOfMemoryError:
        raise
    except WRONG_ARGUMENTS as error:
        said = str(error) or type(error).__name__
        raise ValueError(f"network_d: {block['type']} does not take images of {tuple(image.shape)}: {said}") from error
    return net


def pad_student(student: nn.Module, opt: dict[str, Any]) -> None:
    """Pad the student's images to the sizes that it takes; its copies (EMA, history) are built from a block that says so."""
    if sizes := fit_sizes(student, example_channels(student), "network_g"):
        opt["network_g"] = padded_block(opt["network_g"], sizes)


def build_teachers(opt: Mapping[str, Any], student: nn.Module, x: Tensor, precision: Precision) -> dict[str, Teacher]:
    """Build `teacher` and `teacher_clean`, try them out, and log what teacher and student cost.

    Args:
        opt: the options of the run.
        student: unwrapped.
        x: an image of the training size, on the device that teachers go to.
        precision: whose memory layout they get.

    Returns:
        The teacher of each view; empty where the option file has none.

    Raises:
        ValueError: see `build_teacher`; or a teacher does not take the image.
    """
    if not opt.get("teacher"):
        return {}
    keys = [key for key in ("teacher", "teacher_clean") if opt.get(key)]
    built = [precision.to_memory_format(build_teacher(opt[key], key)).to(x.device) for key in keys]
    for teacher in built:
        teacher.fit_sizes(x.shape[1])
        teacher.try_out(x)
    compare_networks(built[0].net, student, x, int(opt.get("scale") or 1))
    return {**dict.fromkeys(VIEWS, built[0]), "clean": built[-1]}


def build_pairs(blocks: Mapping[str, Any], features: Any, student: nn.Module, teachers: Mapping[str, Teacher]) -> Pairs:
    """Pair the layers of the groups that terms are `between`.

    Args:
        blocks: the blocks of the terms, by name.
        features: the `features` block.
        student: unwrapped.
        teachers: by view.

    Raises:
        ValueError: terms without a teacher, or see `find_pairs`.
    """
    if blocks and not teachers:
        raise ValueError("train:distill has terms, but the option file has no `teacher` block")
    used = {group for block in blocks.values() if isinstance(block, Mapping) for group in compared(block)} - {OUTPUT}
    pairs = find_pairs(features, student, teachers["degraded"].net) if used else {}
    return {group: value for group, value in pairs.items() if group in used}


def tap_networks(pairs: Pairs, student: nn.Module, teachers: Iterable[Teacher]) -> FeatureTaps:
    """Tap the paired layers; returns the student's taps.

    Raises:
        KeyError: a layer that a network does not have.
    """
    layers = [pair for group in pairs.values() for pair in group]
    taps = FeatureTaps(student, [pair.student for pair in layers])
    for teacher in dict.fromkeys(teachers):
        teacher.tap([pair.teacher for pair in layers])
    return taps


@torch.no_grad()
def build_conversion(
    pairs: Pairs, terms: Iterable[Term], copied: Copied, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> ScaleConversion | None:
    """Build the conversion to the teacher's scale of the groups that terms read it of; None where there is no such group.

    A pair of features of different sizes is warned of.

    Args:
        pairs: the pairs of layers.
        terms: of the run.
        copied: which channels of the teacher's layers the student started with.
        mine: what the student's layers return for an example, by layer.
        theirs: what the teacher's layers return for it.

    Raises:
        ValueError: a layer does not return one map.
    """
    for layer, feature in (*mine.items(), *theirs.items()):
        if feature.dim() != 4:
            raise ValueError(
                f"features: layer {layer!r} returns {tuple(feature.shape)}, expected one map (N, C, H, W); "
                "`basicsr layers -opt FILE` shows what each layer returns"
            )
    _warn_of_sizes(pairs, mine, theirs)
    read = {group for term in terms if term.reads_conversion for group in term.between}
    converted = {group: own for group, own in pairs.items() if group in read}
    if not converted:
        return None
    scm = ScaleConversion(
        {group: [mine[pair.student].shape[1] for pair in own] for group, own in converted.items()},
        {group: [theirs[pair.teacher].shape[1] for pair in own] for group, own in converted.items()},
    )
    for group, own in converted.items():
        for stage, pair in enumerate(own):
            if (channels := copied.get((pair.student, pair.teacher))) is not None:
                scm.start_as_selection(group, stage, channels)
    return scm


def _warn_of_sizes(pairs: Pairs, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for group, chosen in pairs.items():
        for pair in chosen:
            sizes = [tuple(feature.shape[-2:]) for feature in (mine[pair.student], theirs[pair.teacher])]
            if any(max(sides) >= _RESIZED * min(sides) for sides in zip(*sizes, strict=True)):
                own, other = ("x".join(map(str, size)) for size in sizes)
                get_root_logger().warning(
                    f"features:{group}: [{pair.student}, {pair.teacher}]: the student's feature is {own}, the teacher's {other}, "
                    "one is resized (`basicsr layers -opt FILE` shows what each layer returns)"
                )
