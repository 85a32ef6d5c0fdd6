"""Several tasks at once: their data against each other, and against the teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_plugins.checks.datasets import DATASETS
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import our_model
from kd_plugins.data import TaskDataset, is_unlabelled, task_blocks
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import choose, show
from kd_plugins.teachers.network_keys import TASKS

TEACHERS = ("teacher", "teacher_clean")


def check_multi_task(findings: Findings, opt: Mapping[str, Any], is_train: bool) -> None:
    """Report data of tasks that cannot stand in one batch, and tasks that the teachers do not have."""
    if is_train:
        _check_batches(findings, task_blocks(mapping(opt, "datasets", "train")))
    if our_model(opt) is None:
        return
    for teacher in TEACHERS:
        tasks = mapping(opt, teacher, TASKS)
        if tasks:
            _check_teachers(findings, opt, teacher, [str(task) for task in tasks], is_train)


def _check_batches(findings: Findings, blocks: Mapping[str, Mapping[Any, Any]]) -> None:
    """The samples of a batch, of whichever tasks, are of one size, and all of them have a clean image or none has."""
    (first, expected), *others = blocks.items() if blocks else [("", {})]
    for task, block in others:
        path, sizes = ("datasets", "train", TASKS, task), [each.get("gt_size") for each in (expected, block)]
        if None not in sizes and sizes[0] != sizes[1]:
            findings.error((*path, "gt_size"), f"{show(sizes[1])}, expected that of {first!r}, {sizes[0]}: a batch has both")
        if is_unlabelled(block) != is_unlabelled(expected):
            has, other = ("has no", "has") if is_unlabelled(block) else ("has", "has no")
            findings.error(
                (*path, "type"), f"{show(block.get('type'))}, {has} clean images, but {first!r} {other}; expected all or none to"
            )


def _check_teachers(findings: Findings, opt: Mapping[str, Any], teacher: str, tasks: list[str], is_train: bool) -> None:
    for phase, dataset in blocks_in(opt.get("datasets")):
        kind = dataset.get("type")
        for task in task_blocks(dataset):
            if task not in tasks:
                findings.error(("datasets", phase, TASKS, task), f"`{teacher}` has no such task; {choose(task, tasks)}")
        if kind != TaskDataset.__name__ and isinstance(kind, str) and DATASETS.has(kind) and DATASETS.block_of(kind) is not None:
            findings.error(
                ("datasets", phase, "type"),
                f"{show(kind)}, tells no task, which `{teacher}: {{{TASKS}: ...}}` needs, expected {TaskDataset.__name__}",
            )
    trained = task_blocks(mapping(opt, "datasets", "train"))
    for task in tasks if is_train and trained else ():
        if task not in trained:
            findings.warning((teacher, TASKS, task), f"nothing to train on: datasets:train has {', '.join(trained)}")
