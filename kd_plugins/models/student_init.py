"""What a student starts from: `init` of an option file."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import yaml
from basicsr.data import build_dataset
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.arguments import AtLeast, build, checked, require, signature_block
from kd_plugins.data import TaskDataset
from kd_plugins.randomness import kept_randomness, seed_generators
from kd_plugins.students import Channels, first_order, inherit
from kd_plugins.students.depth import kept_blocks, name_in_teacher
from kd_plugins.students.from_teacher import student_of
from kd_plugins.students.kept_student import kept_student
from kd_plugins.terminal import status


@checked
@dataclass(frozen=True)
class Init:
    """A start from the teacher's weights.

    Attributes:
        from_: where they come from.
        channels: which ones (see `inherit`).
        refit: whether the layers are then fitted to the teacher's answers.
        batches: how many training batches both are measured on.
    """

    from_: Literal["teacher"]
    channels: Channels = "importance"
    refit: bool = True
    batches: Annotated[int, AtLeast(1)] = 16


Copied = Mapping[tuple[str, str], Tensor]
"""For a student's layer and a teacher's layer whose channels it has: which ones, see `inherit`."""
INIT = replace(signature_block(Init), name="init", words=("teacher", "random"))


def explicit_student(opt: dict[str, Any]) -> Mapping[str, Any]:
    """The `network_g` block; where it is `from_teacher`, the block of the student that this means, which is logged.

    A run that goes on, or weights that are tested, have the student that was chosen when the run began.

    Args:
        opt: the options; with `from_teacher`, `chosen_student` is what the run's folder is to keep of it (`keep_student`).

    Raises:
        ValueError: see `student_of`, `kept_student`.
    """
    block = opt["network_g"]
    if "from_teacher" not in block:
        return block
    if len(block) > 1:
        raise ValueError(
            f"network_g: {next(key for key in block if key != 'from_teacher')!r} beside `from_teacher`, expected nothing else"
        )
    chosen, error = None, ""
    if distributed.rank() == 0:  # a timing comes out otherwise in each process
        try:
            chosen = _choose_student(opt, block["from_teacher"])
        except ValueError as found:
            if distributed.world_size() == 1:
                raise
            error = str(found)
    chosen, error = distributed.broadcast_object((chosen, error))
    if chosen is None:
        raise ValueError(error)
    line = yaml.safe_dump(chosen["network_g"], default_flow_style=True, sort_keys=False, width=1000).strip()
    get_root_logger().info(f"The student made of the teacher ({chosen['costs']}): network_g: {line}")
    opt["chosen_student"] = chosen
    return chosen["network_g"]


def _choose_student(opt: Mapping[str, Any], request: Any) -> dict[str, Any]:
    paths = opt.get("path") or {}
    weights = paths.get("resume_state") or paths.get("pretrain_network_g")
    if weights and (kept := kept_student(weights, request)):
        return kept
    with status("Looking for a student") as shown:
        student = student_of(opt.get("teacher"), request, lambda line: shown.update(f"Looking for a student: {line}"))
    return {"from_teacher": dict(request), "network_g": student.block, "costs": student.said}


def read_init(init: Any) -> Init | None:
    """The `init` of an option file: 'random' (None), 'teacher', or a mapping of what `Init` takes.

    Raises:
        ValueError: something else.
    """
    if init == "random":
        return None
    require(INIT, init, ("init",))
    return Init("teacher") if init == "teacher" else build(Init, init, ("init",))


def starts_from_weights(opt: Mapping[str, Any]) -> bool:
    """Whether a student starts from any weights, its teacher's or its own."""
    return opt.get("init", "random") != "random" or bool(_own_weights(opt))


def _own_weights(opt: Mapping[str, Any]) -> str:
    """The key that names weights of the student's own, if one does."""
    if opt["path"].get("pretrain_network_g"):
        return "path:pretrain_network_g"
    block = opt["network_g"].get("network") or opt["network_g"]  # of a SourcedNetwork
    return "network_g:checkpoint" if block.get("checkpoint") else ""


def start_student(student: nn.Module, teacher: nn.Module | None, opt: Mapping[str, Any]) -> Copied:
    """Fill a student with its teacher's weights, if `init` says so.

    Args:
        student: unwrapped.
        teacher: the teacher's network, if there is one.
        opt: the options of the run: `init`, `path`, and for `channels: importance` and `refit` the training data.

    Returns:
        Which channels the student's layers have of the teacher's; nothing where the student starts from something else.

    Raises:
        ValueError: see `read_init` and `inherit`.
    """
    init = read_init(opt.get("init", "random"))
    if init is None:
        return {}
    if teacher is None:
        raise ValueError("init: teacher, but the option file has no `teacher` block")
    if own := _own_weights(opt):
        get_root_logger().info(f"The student starts from {own}, not from the teacher.")
        return {}
    refits = init.refit and not opt["path"].get("resume_state")  # a resumed student gets its own weights
    batches, importance = [], None
    with status("Fitting the student's start to its teacher"):
        if refits or init.channels == "importance":
            with kept_randomness():
                batches = list(_batches(opt, init.batches))
        if init.channels == "importance":
            importance = first_order(teacher, batches)
        images = _one_size([batch["lq"] for batch in batches]) if refits else None
        kept = inherit(student, teacher, init.channels, importance, images)
    distributed.broadcast_parameters(student.parameters())  # sums that differ in their last digit could keep other channels
    how = f"channels: {init.channels}{', refit' if refits else ''}"
    get_root_logger().info(f"The student starts from the teacher's weights ({how}).")
    return _with_blocks_left_out(kept, student, teacher)


def _with_blocks_left_out(kept: Mapping[str, Tensor], student: nn.Module, teacher: nn.Module) -> Copied:
    """By the teacher's names; where all blocks of a run have the same channels (a residual stream), so have those left out."""
    blocks = kept_blocks(student, teacher)
    copied = {(name, name_in_teacher(name, blocks)): channels for name, channels in kept.items()}
    for container, numbers in blocks.items():
        own = {name: kept[name] for index in range(len(numbers)) if (name := f"{container}.{index}") in kept}
        if len(own) > 1 and len({tuple(channels.tolist()) for channels in own.values()}) == 1:
            within = name_in_teacher(container, blocks)
            theirs = [f"{within}.{number}" for number, _ in enumerate(teacher.get_submodule(within).children())]
            copied |= {(name, each): channels for name, channels in own.items() for each in theirs}
    return copied


def _one_size(images: list[Tensor]) -> Tensor:
    return torch.cat([each for each in images if each.shape[1:] == images[0].shape[1:]])


def _batches(opt: Mapping[str, Any], count: int) -> Iterator[dict[str, Tensor]]:
    """Batches of the training data, the same ones in every run."""
    block = copy.deepcopy(opt["datasets"].get("train") or {})
    if not block.get("type"):
        raise ValueError("init: importance and refit need the training data, but there is no `datasets: train`")
    seed_generators(0)
    dataset: Any = build_dataset(block)
    if isinstance(dataset, TaskDataset):  # of several teachers the first is meant: it sees the data of its own task
        own = next(iter(opt["teacher"].get("tasks") or ()), None)
        dataset = dataset.datasets.get(str(own), dataset)
    order = torch.randperm(len(dataset)).tolist()
    size = block.get("batch_size_per_gpu", 1)
    for start in range(0, min(count * size, len(order)), size):
        items = [dataset[index] for index in order[start : start + size]]
        if "lq" not in items[0]:
            raise ValueError(
                f"init: importance and refit need degraded images, which {block['type']} does not have (a step makes them); "
                "expected init: {from: teacher, channels: magnitude, refit: false}"
            )
        yield {key: torch.stack([item[key] for item in items]) for key in ("lq", "gt") if key in items[0]}
