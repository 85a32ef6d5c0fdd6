"""The training data: what training needs of them, in each stage, and what cannot hold together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.crop_stages import check_stages, stages_of, training_images
from kd_plugins.checks.datasets import LOADER_NEEDS, training_needs
from kd_plugins.checks.findings import Findings
from kd_plugins.data import realesrgan
from kd_plugins.data.crop_stages import CropStage
from kd_plugins.mappings import mapping
from kd_plugins.training.accumulation import part_size


def check_training_data(findings: Findings, opt: Mapping[str, Any]) -> None:
    """Report what is missing, and what does not go together."""
    stages = stages_of(findings, opt)
    check_stages(findings, opt, stages)
    _check_sizes(findings, opt, stages)
    _check_accumulation(findings, opt, stages)
    _check_real_esrgan(findings, opt, stages)
    needed = {(path, key): block for path, block, keys in _needs(opt, stages) for key in keys if _lacks(block, key)}
    for (path, key), block in needed.items():
        findings.error((*path, key), f"missing, training on {block.get('type')} needs it")


def _needs(opt: Mapping[str, Any], stages: Sequence[CropStage]) -> Iterator[tuple[Path, Mapping[Any, Any], Sequence[str]]]:
    yield from ((("datasets", "train"), stage.block, LOADER_NEEDS) for stage in stages if stage.block)
    yield from ((path, block, training_needs(block.get("type"))) for path, _, block in training_images(opt, stages))


def _lacks(block: Mapping[Any, Any], key: str) -> bool:
    return block.get(key) is None and not (key in block and key.startswith("use_"))


def _check_sizes(findings: Findings, opt: Mapping[str, Any], stages: Sequence[CropStage]) -> None:
    scale = opt.get("scale")
    if not isinstance(scale, int) or scale < 1:  # said elsewhere
        return
    sizes = [(path, train["gt_size"]) for _, path, train in training_images(opt, stages) if _crops(train)]
    for path, size in dict.fromkeys(sizes):
        if size % scale:
            findings.error(path, f"{size}, expected a multiple of the scale, {scale}")


def _crops(train: Mapping[Any, Any]) -> bool:
    return "gt_size" in training_needs(train.get("type")) and isinstance(train.get("gt_size"), int)


def _check_accumulation(findings: Findings, opt: Mapping[str, Any], stages: Sequence[CropStage]) -> None:
    train = mapping(opt.get("train"))
    batches = [stage.block.get("batch_size_per_gpu") for stage in stages]
    if findings.has_error(("train", "accumulate")):
        return
    for batch in dict.fromkeys(size for size in batches if isinstance(size, int)):
        try:
            part_size(train, batch)
        except ValueError as error:
            findings.error(("train", "accumulate"), str(error).removeprefix("train:accumulate: "))
            return


def _check_real_esrgan(findings: Findings, opt: Mapping[str, Any], stages: Sequence[CropStage]) -> None:
    for path, _, block in training_images(opt, stages[:1]):
        if block.get("type") != "RealESRGANDataset":
            continue
        if len(stages) > 1:
            findings.error((*path, "type"), "RealESRGANDataset, whose pool holds pairs of one size, expected no stages of it")
        if "tasks" in path:
            findings.error((*path, "type"), "RealESRGANDataset, whose pool of pairs would mix the tasks, expected it alone")
        for key, text in realesrgan.faults(opt):
            findings.error((key,), text)
        scale, size = opt.get("scale"), opt.get("gt_size")
        if isinstance(scale, int) and scale > 0 and realesrgan.CROP % scale:
            findings.error(("scale",), f"{scale}, expected a divisor of {realesrgan.CROP}, the side of RealESRGANDataset's images")
        if isinstance(size, int) and size > realesrgan.CROP:
            findings.error(("gt_size",), f"{size}, expected at most {realesrgan.CROP}, the side of RealESRGANDataset's images")
        if mapping(block.get("io_backend")).get("type") == "disk" and not block.get("meta_info"):
            findings.error((*path, "meta_info"), "missing, expected a file with the path of an image in dataroot_gt in each line")
        for number in ("", "2"):
            kinds, odds = block.get(f"kernel_list{number}"), block.get(f"kernel_prob{number}")
            if isinstance(kinds, list) and isinstance(odds, list) and len(kinds) != len(odds):
                findings.error(
                    (*path, f"kernel_prob{number}"), f"{len(odds)} values, expected one for each of {len(kinds)} kernels"
                )
