"""Crops and batches that change on the way of a training (progressive learning), as `datasets: train` says it.

Either `stages: [{until: 92000, gt_size: 128, batch_size_per_gpu: 8}, ..., {gt_size: 384, batch_size_per_gpu: 1}]`, or Restormer's
lists: `iters` (how many iterations each stage has), `gt_sizes` and `mini_batch_sizes`, of which `gt_size` and `batch_size_per_gpu`
are the largest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, NamedTuple

from kd_plugins.arguments import AtLeast, Block, Count, Held, MinLen, Path
from kd_plugins.data.dataset_options import task_blocks
from kd_plugins.messages import show

STAGES = "stages"
_LENGTHS = "iters"
_LISTS = {"gt_sizes": "gt_size", "mini_batch_sizes": "batch_size_per_gpu"}
"""Restormer's, and what each of their numbers is."""
STAGE = Block("a stage", {"until": Annotated[float | None, AtLeast(1)], "gt_size": Count, "batch_size_per_gpu": Held})
RESTORMER: dict[str, Any] = {
    _LENGTHS: Annotated[list[float] | None, AtLeast(1), MinLen(1)],
    **dict.fromkeys(_LISTS, Annotated[list[int] | None, AtLeast(1), MinLen(1)]),
}


class CropStage(NamedTuple):
    """A stage of a training.

    Attributes:
        first: how many iterations are over when it begins.
        until: its last iteration; infinite for the last stage.
        block: `datasets: train`, as it is in this stage.
    """

    first: float
    until: float
    block: dict[str, Any]

    @property
    def crop(self) -> int:
        """`gt_size`, 0 without; all tasks of a `TaskDataset` have the same."""
        return next(iter(task_blocks(self.block).values()), self.block).get("gt_size") or 0


def crop_stages(block: Mapping[str, Any]) -> list[CropStage]:
    """The stages of a training, one where `datasets: train` tells of none.

    Args:
        block: `datasets: train`.

    Raises:
        ValueError: what it tells of stages does not go together.
    """
    for path, text in stage_faults(block):
        raise ValueError(f"{':'.join(('datasets', 'train', *path))}: {text}")
    told, rest = _told(block), {key: value for key, value in block.items() if key not in (STAGES, *RESTORMER)}
    ends = [float(stage["until"]) for stage in told[:-1]]
    return [
        CropStage(first, until, _changed(rest, {key: value for key, value in stage.items() if key != "until" and value}))
        for first, until, stage in zip([0.0, *ends], [*ends, math.inf], told, strict=True)
    ]


def stage_at(stages: Sequence[CropStage], iteration: int) -> int:
    """Which stage the next step belongs to, counted from 0, when so many iterations are over."""
    return next(index for index, stage in enumerate(stages) if iteration < stage.until)


def stage_faults(block: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong with stages, by the keys below `datasets: train` that it is wrong with; types are checked elsewhere."""
    lists = [key for key in (_LENGTHS, *_LISTS) if block.get(key)]
    if block.get(STAGES) and lists:
        yield (STAGES,), f"stands beside {lists[0]}, which says the same in Restormer's words; expected one of them"
    elif lists:
        yield from _list_faults(block, lists)
    else:
        yield from _stage_faults(_told(block))


def _list_faults(block: Mapping[str, Any], lists: Sequence[str]) -> Iterator[tuple[Path, str]]:
    if _LENGTHS not in lists or len(lists) == 1:
        missing = " or ".join(_LISTS) if _LENGTHS in lists else _LENGTHS
        yield (lists[0],), f"{show(block[lists[0]])}, stages of a training, expected {missing} beside it"
        return
    if any(length != int(length) for length in block[_LENGTHS]):
        yield (_LENGTHS,), f"{show(block[_LENGTHS])}, expected whole numbers"
    for key in lists[1:]:
        values, largest = block[key], block.get(_LISTS[key])
        if len(values) != len(block[_LENGTHS]):
            yield (key,), f"{show(values)}, expected one for each of the {len(block[_LENGTHS])} {_LENGTHS}"
        elif isinstance(largest, int) and max(values) > largest:
            yield (key,), f"{show(values)}, expected at most {_LISTS[key]}, {largest}"


def _stage_faults(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Path, str]]:
    end = 0.0
    for index, stage in enumerate(stages):
        until = stage.get("until")
        if until is None and index < len(stages) - 1:
            yield (STAGES, str(index), "until"), "missing, expected the last iteration of the stage"
        elif until is not None and (until <= end or until != int(until)):
            expected = "a whole number" if until != int(until) else f"more than {end:g}, the end of the stage before"
            yield (STAGES, str(index), "until"), f"{show(until)}, expected {expected}"
        end = max(end, until or 0)


def _told(block: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The stages as `stages` would list them."""
    if not block.get(_LENGTHS):
        return block.get(STAGES) or [{}]
    ends = list(accumulate(block[_LENGTHS]))
    sizes = {one: block[key] for key, one in _LISTS.items() if block.get(key)}
    return [{"until": end, **{key: values[index] for key, values in sizes.items()}} for index, end in enumerate(ends)]


def _changed(block: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """A block with another crop and batch; of a `TaskDataset` the crop is its tasks'."""
    tasks = task_blocks(block)
    if not tasks or "gt_size" not in sizes:
        return {**block, **sizes}
    cut = {task: {**part, "gt_size": sizes["gt_size"]} for task, part in tasks.items()}
    return {**block, "tasks": cut, "batch_size_per_gpu": sizes.get("batch_size_per_gpu", block.get("batch_size_per_gpu"))}
