"""Crops and batches that change on the way of a training: the stages against each other, the run, and the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.datasets import DATASETS
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.paths import image_datasets
from kd_plugins.data.crop_stages import RESTORMER, STAGES, CropStage, crop_stages, stage_faults
from kd_plugins.data.image_sizes import shorter_sides
from kd_plugins.mappings import mapping
from kd_plugins.messages import show

_TRAIN = ("datasets", "train")


def stages_of(findings: Findings, opt: Mapping[str, Any]) -> list[CropStage]:
    """The stages of the training data; none where something about them is wrong, which has been said by then."""
    train = mapping(opt, "datasets", "train")
    if any(findings.has_error((*_TRAIN, key)) for key in (STAGES, *RESTORMER, "gt_size", "batch_size_per_gpu", "tasks")):
        return []
    faults = list(stage_faults(train))
    for path, text in faults:
        findings.error((*_TRAIN, *path), text)
    return [] if faults else crop_stages(train)


def training_images(opt: Mapping[str, Any], stages: Sequence[CropStage]) -> Iterator[tuple[Path, Path, Mapping[Any, Any]]]:
    """The datasets that read training images: where each stands, where its `gt_size` does, and its block, for each stage."""
    for index, stage in enumerate(stages):
        for path, block in image_datasets({"datasets": {"train": stage.block}}):
            yield path, _place(opt, index) or (*path, "gt_size"), block


def _place(opt: Mapping[str, Any], index: int) -> Path:
    """Where the crop of a stage stands; empty if that is not with the stages."""
    train = mapping(opt["datasets"].get("train"))
    if listed := train.get(STAGES):
        return (*_TRAIN, STAGES, str(index), "gt_size") if listed[index].get("gt_size") else ()
    return (*_TRAIN, "gt_sizes") if train.get("gt_sizes") else ()


def check_stages(findings: Findings, opt: Mapping[str, Any], stages: Sequence[CropStage]) -> None:
    """Report stages of the training data that a run never comes to, or comes to with images that are too small for them."""
    for name, block in mapping(opt.get("datasets")).items():
        if name != "train" and (idle := [key for key in (STAGES, *RESTORMER) if key in mapping(block)]):
            findings.warning(("datasets", str(name), idle[0]), "only datasets:train has stages; it has no effect")
    total, crops = mapping(opt.get("train")).get("total_iter"), [stage.crop for stage in stages]
    if len(stages) < 2:
        return
    if isinstance(total, (int, float)):
        _check_length(findings, opt, stages, total)
    largest = crops.index(max(crops))
    place, scale = _place(opt, largest), opt.get("scale") or 1
    for _, _, block in training_images(opt, stages[largest : largest + 1]) if place else ():
        known = DATASETS.block_of(kind) if DATASETS.has(kind := str(block.get("type"))) else None
        if known is not None and "gt_size" not in known.keys:
            findings.error(place, f"{show(crops[largest])}, {kind} has no crops; expected stages of `batch_size_per_gpu` alone")
        elif largest and isinstance(scale, int):
            _check_images(findings, place, block, scale)


def _check_length(findings: Findings, opt: Mapping[str, Any], stages: Sequence[CropStage], total: float) -> None:
    listed = opt["datasets"]["train"].get(STAGES)
    place = (*_TRAIN, STAGES) if listed else (*_TRAIN, "iters")
    if never := [index for index, stage in enumerate(stages) if stage.first >= total]:
        said = f"stage {never[0] + 1} begins after iteration {stages[never[0]].first:g}, and the run ends at {total:g}"
        findings.warning(place, said)
    elif listed and (end := listed[-1].get("until")) is not None and end != total:
        findings.error((*place, str(len(stages) - 1), "until"), f"{show(end)}, expected total_iter, {total:g}, or no such key")


def _check_images(findings: Findings, path: Path, block: Mapping[Any, Any], scale: int) -> None:
    """Hold a crop to the images: they would be found too small when the stage begins."""
    key, sides = shorter_sides(block, scale)
    small = sorted((name for name, side in sides.items() if side < block["gt_size"]), key=lambda name: (sides[name], name))
    if not small:
        return
    more = f" and {len(small) - 1} more images" if len(small) > 1 else ""
    said = f"{block['gt_size']}, larger than {small[0]!r}{more} of {key}, whose shorter side is {sides[small[0]]}"
    if block.get("on_bad_image") == "skip":
        findings.warning(path, f"{said}; smaller images are left out of the stage")
    else:
        findings.error(path, f"{said}; expected at most that, or `on_bad_image: skip`, which leaves smaller images out")
