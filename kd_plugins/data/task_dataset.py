"""Several tasks in one dataset; every item carries the name of its task."""

from __future__ import annotations

from collections.abc import Mapping
from os import path as osp
from typing import Any

from basicsr.data import build_dataset
from torch.utils.data import Dataset

from kd_plugins.data.bad_images import ReadableItems
from kd_plugins.data.dataset_options import is_unlabelled, task_blocks
from kd_plugins.data.dataset_registration import Phase, register_dataset
from kd_plugins.home import expand_in
from kd_plugins.run_options import DATA_PATHS


@register_dataset
class TaskDataset(Dataset):
    """The datasets of several tasks as one, for a student that learns all of them.

    In training the tasks take turns, so that each has an equal share, however many images it has; a shorter dataset begins anew
    [ours]. In validation and test they come whole, one after another. The randomness of an item is that of its own dataset
    (`SeededItems`).

    Args:
        tasks: ``{TASK: {type: any registered dataset, <its keys>}, ...}``; ``phase``, ``scale`` and ``on_bad_image`` are handed
            down. The loader's keys stand beside ``tasks``.
        phase: What the items are for.

    Returns:
        The items of the datasets, each with its ``task``, a string. Where several tasks are validated, the name of the file in
        ``lq_path`` ends in the task: two may restore the same photo, and saved images must be unique.

    Raises:
        ValueError: If ``tasks`` is not as above, one of them is a TaskDataset, or in training only some have clean images;
            and whatever the datasets themselves raise.
    """

    opt: Mapping[str, Any]

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]], phase: Phase = "train") -> None:
        """Build the datasets."""
        super().__init__()
        blocks = task_blocks({"type": "TaskDataset", "tasks": tasks})
        if not tasks or len(blocks) < len(tasks):
            raise ValueError(f"datasets: tasks: {tasks!r}, expected {{TASK: {{type: DATASET, ...}}, ...}}")
        if nested := [task for task, block in blocks.items() if block.get("type") == "TaskDataset"]:
            raise ValueError(f"datasets: tasks:{nested[0]}: a TaskDataset inside of another, expected the data of one task")
        self.train = phase == "train"
        if self.train and len({is_unlabelled(block) for block in blocks.values()}) > 1:
            raise ValueError("datasets: tasks: some have clean images and some have none, expected one or the other in training")
        self.datasets: dict[str, Any] = {
            task: ReadableItems(build_dataset(_completed(block, task, self.opt))) for task, block in blocks.items()
        }
        if all(hasattr(dataset, "seeded_item") for dataset in self.datasets.values()):
            self.seeded_item = self._seeded_item  # where one draws by itself, `SeededItems` seeds the generators for all

    def __len__(self) -> int:
        """Return the number of items: in training as many for each task as the longest dataset has."""
        lengths = [len(dataset) for dataset in self.datasets.values()]
        return len(lengths) * max(lengths) if self.train else sum(lengths)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """Return one item of one task."""
        task, number = self._find(index)
        return self._named(self.datasets[task][number], task)

    def _seeded_item(self, index: int, seed: int) -> dict[str, Any] | None:
        """Return one item, whose randomness is a function of the seed."""
        task, number = self._find(index)
        return self._named(self.datasets[task].seeded_item(number, seed), task)

    def _find(self, index: int) -> tuple[str, int]:
        """The task of an item, and its index in the task's dataset."""
        if self.train:
            turn, number = divmod(index, len(self.datasets))
            task = list(self.datasets)[number]
            return task, turn % len(self.datasets[task])
        for task, dataset in self.datasets.items():
            if index < len(dataset):
                return task, index
            index -= len(dataset)
        raise IndexError("index after the last item")

    def _named(self, item: Mapping[str, Any] | None, task: str) -> dict[str, Any] | None:
        if item is None:  # left out
            return None
        named = {**item, "task": task}
        if not self.train and len(self.datasets) > 1 and "lq_path" in named:
            stem, suffix = osp.splitext(named["lq_path"])
            named["lq_path"] = f"{stem}_{task.replace('/', '_')}{suffix}"
        return named


def _completed(block: Mapping[str, Any], task: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The block of a task's dataset, completed as BasicSR completes that of a single dataset."""
    filled = {key: whole[key] for key in ("phase", "scale", "on_bad_image") if key in whole}
    return {"name": f"{whole.get('name')}, {task}", **block, **filled, **expand_in(block, DATA_PATHS)}
