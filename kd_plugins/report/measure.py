"""What student, teacher and exported files make of a run's validation images."""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import path as osp
from typing import Any

import torch
from basicsr.data import build_dataset
from torch import Tensor

from kd_plugins.checks.evaluation import scored_phases
from kd_plugins.data.downsample import enlarge
from kd_plugins.data.pictures import Image, to_image
from kd_plugins.metrics.reference import needs_reference
from kd_plugins.metrics.score import score
from kd_plugins.tables import SHOWN
from kd_plugins.terminal import bar

Restore = Callable[[Tensor, "Sequence[str] | None"], Tensor]
"""(1, C, H, W) and its task, if there are several, to the restored image."""
LARGEST_SIDE = 1024
"""Of what is restored of an image: of a larger one the middle."""
_LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's


@dataclass
class Example:
    """One validation image.

    Attributes:
        name: of its file.
        scores: by role and metric.
        images: by role, those of `SHOWN`.
        gap: how far the student is below its teacher in the first metric; below nothing where there is no teacher.
    """

    name: str
    scores: dict[str, dict[str, float]]
    images: dict[str, Image]
    gap: float


@dataclass
class Comparison:
    """The scores of a validation set.

    Attributes:
        dataset: its name.
        metrics: by name, whether a higher value is the better one; the first is what images are chosen by.
        reference: `clean`, or `teacher` where there are no clean images: then scores tell how near to the teacher an image is.
        means: by role and metric.
        examples: the images where the student is furthest below its teacher, the furthest first.
        used: how many images were restored, of how many.
        cropped: whether the middle of some was restored in place of the whole.
    """

    dataset: str
    metrics: dict[str, bool]
    reference: str
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    used: tuple[int, int] = (0, 0)
    cropped: bool = False


def compare(
    opt: Mapping[str, Any], networks: Mapping[str, Restore], images: int, shown: int, device: torch.device
) -> list[Comparison]:
    """Restore the validation images of a run with several networks, and score them.

    Args:
        opt: the completed options of the run.
        networks: by role: `student`, and perhaps `teacher`, `start` and exported files.
        images: how many of each dataset are restored at most, evenly spread over it.
        shown: how many examples are kept of each dataset.
        device: where the networks are.

    Returns:
        A comparison for each validation set that has an image.

    Raises:
        ValueError, FileNotFoundError: see BasicSR's `build_dataset` and the metrics.
    """
    blocks = [opt["datasets"][phase] for phase in scored_phases(opt)]
    return [found for block in blocks if (found := _compare(block, opt, networks, images, shown, device))]


def _compare(
    block: Mapping[str, Any],
    opt: Mapping[str, Any],
    networks: Mapping[str, Restore],
    images: int,
    shown: int,
    device: torch.device,
) -> Comparison | None:
    dataset: Any = build_dataset(copy.deepcopy(dict(block)))
    count = min(images, len(dataset))
    chosen = [number * len(dataset) // count for number in range(count)]  # evenly spread
    scale = int(opt.get("scale") or 1)
    found: Comparison | None = None
    sums: dict[str, dict[str, float]] = {}
    kept: list[tuple[float, int, Example]] = []
    blocks: dict[str, dict[str, Any]] = {}
    for index in bar(chosen, desc=str(block["name"]), unit="image"):
        item, cropped = _middle(dataset[index], scale)
        restored, tasks = _restore(item, networks, device)
        if found is None:
            reference = "clean" if "clean" in restored else "teacher"
            blocks = metric_blocks(opt, reference in restored, scale)
            better = {name: metric.get("better", "higher") == "higher" for name, metric in blocks.items()}
            found = Comparison(str(block["name"]), better, reference, used=(len(chosen), len(dataset)))
        found.cropped |= cropped
        example = _score(item, restored, blocks, found)
        for role, scores in example.scores.items():
            for metric, value in scores.items():
                sums.setdefault(role, {}).setdefault(metric, 0.0)
                sums[role][metric] += value / len(chosen)
        heapq.heappush(kept, (example.gap, -index, example))
        if len(kept) > shown:
            heapq.heappop(kept)
    if found is not None:
        found.means, found.examples = sums, [example for *_, example in sorted(kept, key=lambda each: each[:2], reverse=True)]
    return found


def _middle(item: dict[str, Any], scale: int) -> tuple[dict[str, Any], bool]:
    """The middle of an item whose restored image is too large."""
    limit = LARGEST_SIDE // scale
    height, width = item["lq"].shape[-2:]
    if max(height, width) <= limit:
        return item, False
    top, left = max(height - limit, 0) // 2, max(width - limit, 0) // 2
    item = {**item, "lq": item["lq"][..., top : top + limit, left : left + limit]}
    if "gt" in item:
        rows, columns = (slice(start * scale, (start + limit) * scale) for start in (top, left))
        item["gt"] = item["gt"][..., rows, columns]
    return item, True


@torch.no_grad()
def _restore(item: Mapping[str, Any], networks: Mapping[str, Restore], device: torch.device) -> tuple[dict[str, Image], Any]:
    lq, tasks = item["lq"][None].to(device), [item["task"]] if "task" in item else None
    restored = {role: to_image(network(lq, tasks)) for role, network in networks.items()}
    if "gt" in item:
        restored["clean"] = to_image(item["gt"][None])
    image = to_image(lq)
    if image.ndim == restored["student"].ndim:  # else it is no such image
        height, width = restored["student"].shape[:2]
        restored["input"] = image if image.shape[:2] == (height, width) else enlarge(image, height, width)
    return restored, tasks


def _score(item: Mapping[str, Any], restored: Mapping[str, Image], blocks: Mapping[str, Any], found: Comparison) -> Example:
    scores: dict[str, dict[str, float]] = {}
    reference = restored.get(found.reference)
    for role, image in restored.items():
        if role == "clean":
            continue
        scores[role] = {}
        for name, block in blocks.items():
            compares = needs_reference(block["type"])
            if compares and role == found.reference:  # no distance from itself
                continue
            pair = {"img": image, "img2": reference} if reference is not None else {"img": image}
            scores[role][name] = float(score(pair, block))
    name = osp.splitext(osp.basename(str(item.get("lq_path", ""))))[0]
    first = next(iter(found.metrics), "")
    images = {role: image for role, image in restored.items() if role in SHOWN}
    return Example(name, scores, images, _gap(scores, first, found.metrics.get(first, True)))


def _gap(scores: Mapping[str, Mapping[str, float]], metric: str, higher: bool) -> float:
    student, teacher = (scores.get(role, {}).get(metric) for role in ("student", "teacher"))
    gap = (teacher or 0.0) - (student or 0.0)
    gap = gap if higher else -gap
    return gap if math.isfinite(gap) else -math.inf


def metric_blocks(opt: Mapping[str, Any], has_reference: bool, scale: int) -> dict[str, dict[str, Any]]:
    """The run's own metrics, with PSNR first, SSIM, and LPIPS where its weights are on this machine.

    Args:
        opt: the options of the run.
        has_reference: whether there are images to compare with; without, only metrics that need none are left.
        scale: how many times larger the restored image is.
    """
    own = {name: dict(block) for name, block in ((opt.get("val") or {}).get("metrics") or {}).items()}
    types = {block["type"] for block in own.values()}
    beside = [("psnr", {"type": "calculate_psnr"}), ("ssim", {"type": "calculate_ssim"})]
    if osp.isfile(osp.join(torch.hub.get_dir(), "checkpoints", _LPIPS_BACKBONE)):
        beside.append(("lpips", {"type": "calculate_lpips", "better": "lower"}))
    border = {"crop_border": scale if scale > 1 else 0}
    found = own | {name: block | border for name, block in beside if block["type"] not in types}
    ordered = sorted(found.items(), key=lambda entry: entry[1]["type"] != "calculate_psnr")
    return {name: block for name, block in ordered if has_reference or not needs_reference(block["type"])}
