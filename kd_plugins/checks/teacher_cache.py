"""A cache of the teacher's outputs, and data that it can do nothing for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.multi_task import TEACHERS
from kd_plugins.checks.paths import image_datasets
from kd_plugins.mappings import mapping
from kd_plugins.messages import show
from kd_plugins.teachers.network_keys import CACHE, TASKS


def check_teacher_cache(findings: Findings, opt: Mapping[str, Any]) -> None:
    """Report a place where no folder can be; warn where images are random without end, so that none comes twice."""
    teachers = {(key,): mapping(opt.get(key)) for key in TEACHERS}
    blocks = {
        **teachers,
        **{
            (*path, TASKS, str(task)): mapping(block)
            for path, teacher in teachers.items()
            for task, block in mapping(teacher.get(TASKS)).items()
        },
    }
    blocks = {path: block for path, block in blocks.items() if block.get(CACHE)}
    for path, block in blocks.items():
        _check_folder(findings, (*path, CACHE), block[CACHE])
    train = mapping(mapping(opt.get("datasets")).get("train"))
    kinds = [str(block.get("type")) for path, block in image_datasets(opt) if path[1] == "train"]
    if "RealESRGANDataset" in kinds:
        said = "the degradation of Real-ESRGAN is drawn anew for each batch: nothing is found in it"
    elif train and not train.get("crops_per_image"):
        said = (
            "the crops of datasets:train are random without end: hardly one is found in it; `crops_per_image: 10` there ends them"
        )
    else:
        return
    for path in blocks:
        findings.warning((*path, CACHE), said)


def _check_folder(findings: Findings, path: Path, cache: Any) -> None:
    folder = mapping(cache).get("folder", cache)
    if not isinstance(folder, str):  # said by its type
        return
    file = File(os.path.expanduser(folder)).absolute()
    there = next(place for place in (file, *file.parents) if place.exists())
    if not there.is_dir():
        findings.error(path, f"{show(folder)}, {there} is a file, expected a folder")
    elif not os.access(there, os.W_OK):
        findings.warning(path, f"{show(folder)} cannot be written to: what is in it is used, and nothing is added")
