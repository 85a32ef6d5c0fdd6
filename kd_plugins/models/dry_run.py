"""A trial pass before training: what networks take, return and cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn
from torch.utils.data import default_collate

from kd_plugins.archs.adapter import describe_output, describe_refusal
from kd_plugins.compiling import uncompiled
from kd_plugins.data import channels_of, task_blocks
from kd_plugins.errors import lacks_memory
from kd_plugins.features.layer_outputs import evaluating, example_images
from kd_plugins.metrics.complexity import Complexity, measure_complexity
from kd_plugins.metrics.latency import RESTORED, time_networks
from kd_plugins.randomness import kept_randomness
from kd_plugins.tables import render_table
from kd_plugins.teachers import WRONG_ARGUMENTS, Teacher, zoom_out
from kd_plugins.teachers.cache import hit_rate
from kd_plugins.terminal import status
from kd_plugins.training.accumulation import part_size
from kd_plugins.training.bad_steps import keep_buffers

if TYPE_CHECKING:
    from kd_plugins.data.training_data import TrainingData
    from kd_plugins.models.distillation_model import DistillationModel


def example_input(net: nn.Module, opt: Mapping[str, Any], device: torch.device) -> Tensor:
    """One random image of the training size, (1, C, H, W), of the data's channels, or of those that the network takes."""
    train = opt["datasets"].get("train", {})
    crops = next(iter(task_blocks(train).values()), train)  # of one size for all tasks
    size = int(opt.get("gt_size") or crops.get("gt_size") or 64) // int(opt.get("scale") or 1)  # the first is Real-ESRGAN's
    if count := channels_of(train):
        generator = torch.Generator().manual_seed(0)  # its own, as that of `example_images`
        return torch.rand(1, count, size, size, generator=generator).to(device)
    images = example_images(net, size, size, device)
    return next((image for image in images[:-1] if _takes(net, image)), images[-1])


def _takes(net: nn.Module, x: Tensor) -> bool:
    """Whether a network runs on a batch."""
    try:
        with evaluating(net):
            net(x)
    except Exception:  # what a network says of other channels is its own affair
        return False
    return True


def try_student(net: nn.Module, x: Tensor) -> None:
    """Hold a student to what it makes of an image like those that it is trained on.

    Raises:
        ValueError: it takes other channels or sizes, or makes no one image of it.
    """
    try:
        with evaluating(net):
            image = net(x)
    except torch.OutOfMemoryError:
        raise
    except (*WRONG_ARGUMENTS, ValueError) as error:
        height, width = x.shape[-2:]
        others = [each for each in example_images(net, height, width, x.device) if each.shape[1] != x.shape[1]]
        if fine := next((each.shape[1] for each in others if _takes(net, each)), 0):
            raise ValueError(
                f"network_g: {type(net).__name__} takes images of {fine} channels, those of the data have {x.shape[1]}; `color: y` "
                "in a dataset makes them gray, of one"
            ) from error
        raise ValueError(f"network_g: {describe_refusal(net, x, error)}") from error
    if not isinstance(image, Tensor):
        raise ValueError(f"network_g: {describe_output(net, image)}; choose one: `output: 0`, or a key")


def try_zoomed_out(student: nn.Module, teacher: Teacher, x: Tensor) -> None:
    """Hold both networks to an image as small as the zoomed-out view of what they are trained on.

    Raises:
        ValueError: one of them does not take it, or there is none.
    """
    with evaluating(student):
        small = zoom_out(x, student(x))
    try:
        try_student(student, small)
        teacher.try_out(small)
    except ValueError as error:
        raise ValueError(f"view: zoomed_out: {error}; a larger `gt_size` makes it larger") from error


def try_later_steps(model: DistillationModel, data: TrainingData) -> None:
    """Find out before a run what a later step would end with: crops, or a term that does not count at first (`fade`, `every`).

    All losses of a batch of each crop are computed, one sample of the data enlarged to it; nothing is learnt.

    Args:
        model: of the run.
        data: as the run begins with it.

    Raises:
        ValueError: there is such a step.
    """
    now, *later = data.remaining()
    crops = {stage.crop: stage for stage in later if stage.crop not in (0, now.crop)} if now.crop else {}
    if len(model.terms_at(int(now.first) + 1)) < len(model.terms):
        crops = {now.crop: now, **crops}
    sample, batches = data.sample() if crops else None, model.batches
    for crop, stage in crops.items() if sample is not None else ():
        count = part_size(model.opt["train"], stage.block["batch_size_per_gpu"])
        restore = keep_buffers([*model.networks().values(), *(term.loss for term in model.terms.values())])
        model.batches = copy.copy(batches)  # whose pool of pairs the trial fills
        try:
            with kept_randomness(), torch.no_grad(), uncompiled(), model.precision.autocast(model.device):
                model.feed_data(default_collate([sample] * count))
                for name in ("lq", "gt", "gt_usm") if stage is not now else ():
                    if (image := getattr(model, name)) is not None:
                        setattr(model, name, F.interpolate(image, size=[side * crop // now.crop for side in image.shape[-2:]]))
                model.compute_losses()
        except (*WRONG_ARGUMENTS, ValueError) as error:
            if lacks_memory(error):
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0]
            where = "a later step" if stage is now else f"datasets:train: the stage with crops of {crop}"
            raise ValueError(f"{where}: {said}") from error
        finally:
            restore()
            model.batches = batches
    hit_rate(cache for teacher in model.teachers.values() for cache in teacher.caches())  # of what a run logs these are none


@master_only
def compare_networks(teacher: nn.Module, student: nn.Module, x: Tensor, scale: int = 1) -> None:
    """Log what teacher and student cost, and what the student saves.

    Args:
        teacher: its network.
        student: its network.
        x: an image of the training size; FLOPs are counted on it.
        scale: how many times larger the restored image is; latency is that of one of `RESTORED` (see `time_networks`).

    Raises:
        ValueError: one of them does not take the image.
    """
    roles = {"teacher": teacher, "student": student}
    costs = [_cost(role, net, x) for role, net in roles.items()]
    names = [f"{role} ({type(net).__name__})" for role, net in roles.items()]
    with status("Timing teacher and student"):
        times, timed_at = time_networks(list(roles.values()), x, RESTORED // scale)
    rows = [
        [name, f"{cost.params / 1e6:.3f} M", f"{cost.flops / 1e9:.3f} G", str(latency)]
        for name, cost, latency in zip(names, costs, times, strict=True)
    ]
    pairs = [*zip(*costs, strict=True), tuple(latency.median for latency in times)]
    rows.append(["reduction", *(f"{100 * (1 - mine / theirs):.1f} %" if theirs else "" for theirs, mine in pairs)])
    size = "x".join(map(str, x.shape[-2:]))
    title = f"Networks on {x.device}: FLOPs at {size}, latency at {timed_at} (median, fastest - slowest)"
    get_root_logger().info(render_table(title, ["", "parameters", "FLOPs", "latency"], rows))


def _cost(role: str, net: nn.Module, x: Tensor) -> Complexity:
    try:
        return measure_complexity(net, x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{role}: {describe_refusal(net, x, error)}") from error
