"""A sanity check before the first step: what teacher and student make of a few images of the validation sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from basicsr.data import build_dataset
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn

from kd_plugins.archs.adapter import Adapter
from kd_plugins.features.layer_outputs import evaluating
from kd_plugins.randomness import kept_randomness, seed_generators
from kd_plugins.tables import ROLES
from kd_plugins.teachers import Teacher

_IMAGES = 3
_SIDE, _SIDE_BEFORE_ENLARGING = 96, 64  # enough for a network to restore the middle, and seconds on a CPU
_NOTABLY = 0.1  # dB
_OTHER_VALUES = ({"value_range": 255}, {"mean": 0.5}, {"value_range": 255, "mean": 0.5})

Restore = Callable[[Tensor], Tensor]


class Sample(NamedTuple):
    """Crops out of the middle of some images of a dataset: (N, C, h, w), (N, C', H, W), and their tasks, if there are several."""

    name: str
    lq: Tensor
    gt: Tensor
    tasks: list[str] | None


@master_only
def sanity_check(opt: Mapping[str, Any], teacher: Teacher, student: nn.Module | None, device: torch.device) -> None:
    """Log the PSNR of teacher and student beside their input's, and warn of a teacher that only makes it worse.

    Args:
        opt: the options of the run; the validation sets are looked at, the training data where there are none.
        teacher: of the degraded view.
        student: unwrapped; None for one that starts from nothing, which restores nothing yet.
        device: where they are.
    """
    if (opt.get("path") or {}).get("resume_state"):  # the student is not yet what it will be
        return
    with kept_randomness():
        for sample in _samples(opt):
            sample = sample._replace(lq=sample.lq.to(device), gt=sample.gt.to(device))
            scores = {"input": _psnr(_enlarged(sample), sample.gt), "teacher": _score(_by_teacher(teacher, sample), sample)}
            if student is not None:
                scores["student"] = _score(_in_eval(student), sample)
            _report(sample, scores, teacher)


def _report(sample: Sample, scores: Mapping[str, float | None], teacher: Teacher) -> None:
    known = {role: score for role in ROLES if (score := scores.get(role)) is not None}
    size = "x".join(map(str, sample.lq.shape[-2:]))
    count = len(sample.lq)
    where = f"{count} crop{'s' * (count > 1)} ({size}) of {sample.name}"
    values = ", ".join(f"{role} {score:.2f} dB" for role, score in known.items())
    limit = scores["input"]
    below = limit is not None and known.get("student", limit) < limit - _NOTABLY
    note = f" The student starts {limit - known['student']:.2f} dB below its input." if limit and below else ""
    get_root_logger().info(f"Before the first step, PSNR of {where}: {values}.{note}")
    if limit is None or known.get("teacher", limit) > limit - _NOTABLY:
        return
    likely = _better_values(teacher, sample, limit) or (
        "likely another range of values or a mean (`value_range: 255`, `mean: 0.5` in its block), channels in the order BGR, "
        "another task, scale or level of noise, weights of another architecture, or another of its outputs (`output`)"
    )
    get_root_logger().warning(f"{teacher.key}: its images are {limit - known['teacher']:.2f} dB below their input; {likely}.")


def _better_values(teacher: Teacher, sample: Sample, limit: float) -> str:
    """Which range of values, or order of channels, makes the teacher restore; nothing where none of those tried does."""
    if not hasattr(teacher, "members"):  # of several, each has its own block
        adapter = Adapter.on(teacher.net)
        before = adapter.value_range, adapter.mean
        for values in _OTHER_VALUES:
            adapter.value_range, adapter.mean = values.get("value_range", 1), [values["mean"]] if "mean" in values else []
            score = _score(_by_teacher(teacher, sample), sample)
            adapter.value_range, adapter.mean = before
            if score is not None and score >= limit - _NOTABLY:
                words = ", ".join(f"{key}: {value}" for key, value in values.items())
                return f"with `{words}` in its block they are at {score:.2f} dB"
    restore = _by_teacher(teacher, sample)
    score = _score(lambda x: restore(x.flip(1)).flip(1), sample)
    if score is not None and score >= limit - _NOTABLY:
        return f"with channels in the order BGR they are at {score:.2f} dB: write a class around it that turns them"
    return ""


# ------------------------------------------------------------------------------------------------ scores


def _by_teacher(teacher: Teacher, sample: Sample) -> Restore:
    return lambda x: teacher(x, sample.tasks).image


def _in_eval(net: nn.Module) -> Restore:
    def restore(x: Tensor) -> Tensor:
        with evaluating(net):
            return net(x)

    return restore


def _score(restore: Restore, sample: Sample) -> float | None:
    try:
        image = restore(sample.lq)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError):  # said by what tries it out on an image of the training size
        return None
    return _psnr(image, sample.gt)


def _psnr(image: Tensor | None, gt: Tensor) -> float | None:
    if not isinstance(image, Tensor) or image.shape != gt.shape:
        return None
    error = F.mse_loss(image.float().clamp(0, 1), gt, reduction="none").flatten(1).mean(1)
    return float((-10 * error.clamp(min=1e-10).log10()).mean())


def _enlarged(sample: Sample) -> Tensor | None:
    """The input at the size of the clean image; None where it is no image like it."""
    lq, gt = sample.lq, sample.gt
    if lq.shape[1] != gt.shape[1]:
        return None
    return lq if lq.shape == gt.shape else F.interpolate(lq, size=gt.shape[-2:], mode="bicubic", antialias=True)


# ------------------------------------------------------------------------------------------------ images


def _samples(opt: Mapping[str, Any]) -> Iterator[Sample]:
    blocks = {phase: block for phase, block in (opt.get("datasets") or {}).items() if block and block.get("type")}
    validated = [block for phase, block in blocks.items() if phase.split("_")[0] == "val"]
    chosen = (validated or [block for phase, block in blocks.items() if phase == "train"])[:_IMAGES]
    for block in chosen:
        seed_generators(0)
        dataset: Any = build_dataset(copy.deepcopy(block))
        count = min(len(dataset), max(1, _IMAGES // len(chosen)))
        items = [_item(dataset, number * len(dataset) // count) for number in range(count)]
        found = [item for item in items if item is not None]
        if sample := _sample(str(block.get("name")), found):
            yield sample


def _item(dataset: Any, index: int) -> Mapping[str, Any] | None:
    try:
        item = dataset[index]
    except Exception:  # a validation says what is wrong with an image
        return None
    return item if item and "lq" in item and "gt" in item else None


def _sample(name: str, items: list[Mapping[str, Any]]) -> Sample | None:
    kinds = [(_scale(item["lq"], item["gt"]), len(item["lq"]), len(item["gt"])) for item in items]
    alike = [item for item, kind in zip(items, kinds, strict=True) if kind == kinds[0] and kind[0] > 0]
    if not alike:
        return None
    scale, _, _ = kinds[0]
    limit = _SIDE if scale == 1 else _SIDE_BEFORE_ENLARGING
    height, width = (min(limit, *(item["lq"].shape[side] for item in alike)) for side in (-2, -1))
    lq = torch.stack([_middle(item["lq"], height, width, 1) for item in alike])
    gt = torch.stack([_middle(item["gt"], height, width, scale) for item in alike])
    return Sample(name, lq, gt, [item["task"] for item in alike] if "task" in alike[0] else None)


def _scale(lq: Tensor, gt: Tensor) -> int:
    """How many times larger the clean image is; 0 where it is not, or where its values are not in [0, 1]."""
    scale = gt.shape[-1] // lq.shape[-1]
    fits = gt.shape[-2:] == (lq.shape[-2] * scale, lq.shape[-1] * scale)
    return scale if fits and gt.min() >= 0 and gt.max() <= 1 else 0  # noise may go beyond


def _middle(image: Tensor, height: int, width: int, scale: int) -> Tensor:
    """The middle of (C, H, W), of a size and a place that are multiples of the scale."""
    top, left = ((side // scale - wanted) // 2 * scale for side, wanted in zip(image.shape[-2:], (height, width), strict=True))
    return image[:, top : top + height * scale, left : left + width * scale]
