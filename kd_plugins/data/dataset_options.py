"""What the option block of a dataset tells about its items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY

_COLOURED = ("DegradedPhotoDataset", "DegradedImageDataset", "PairedImageDataset", "SingleImageDataset", "RealESRGANDataset")


def task_blocks(block: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The blocks of the datasets inside a `TaskDataset`, by task; empty for any other dataset."""
    tasks = block.get("tasks") if block.get("type") == "TaskDataset" else None
    if not isinstance(tasks, Mapping):
        return {}
    return {str(task): part for task, part in tasks.items() if isinstance(part, Mapping)}


def is_unlabelled(block: Mapping[str, Any]) -> bool:
    """Whether the items of a dataset lack ground truth, judging by its option block.

    BasicSR's SingleImageDataset, a `DegradedPhotoDataset` with ``unlabelled: true``, and classes with an attribute
    ``unlabelled = True`` (a user's own may have it) have none; a `TaskDataset` has none where one of its tasks has none.
    """
    return any(_is_unlabelled(part) for part in (task_blocks(block) or {"": block}).values())


def channels_of(block: Mapping[str, Any]) -> int | None:
    """How many channels the images of a dataset have; None where its option block does not tell.

    Args:
        block: of a dataset; of a `TaskDataset` the tasks' have to agree.
    """
    counts = {_channels_of(part) for part in (task_blocks(block) or {"": block}).values()}
    return counts.pop() if len(counts) == 1 else None


def _channels_of(block: Mapping[str, Any]) -> int | None:
    if block.get("type") in _COLOURED:
        return 1 if block.get("color") == "y" else 3
    return None


def _is_unlabelled(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    if kind == "DegradedPhotoDataset":
        return bool(block.get("unlabelled", False))
    known = isinstance(kind, str) and kind in DATASET_REGISTRY
    return kind == "SingleImageDataset" or (known and bool(getattr(DATASET_REGISTRY.get(kind), "unlabelled", False)))
