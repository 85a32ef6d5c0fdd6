"""A cache of the teacher's outputs, and data that it can do nothing for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.multi_task import TEACHERS
from kd_plugins.checks.network_sources import sources_of
from kd_plugins.checks.paths import image_datasets
from kd_plugins.home import expand
from kd_plugins.mappings import mapping
from kd_plugins.messages import show
from kd_plugins.teachers.network_keys import CACHE


def check_teacher_cache(findings: Findings, opt: Mapping[str, Any]) -> None:
    """Report a place where no folder can be; warn where images are random without end, so that none comes twice."""
    train, said = mapping(opt, "datasets", "train"), ""
    if any(block.get("type") == "RealESRGANDataset" for path, block in image_datasets(opt) if path[1] == "train"):
        said = "the degradation of Real-ESRGAN is drawn anew for each batch: nothing is found in it"
    elif train and not train.get("crops_per_image"):
        said = (
            "the crops of datasets:train are random without end: hardly one is found in it; `crops_per_image: 10` there ends them"
        )
    for path, block in sources_of(opt, is_ours=True):
        if path[0] in TEACHERS and block.get(CACHE) is not None:
            _check_folder(findings, (*path, CACHE), block[CACHE])
            if said:
                findings.warning((*path, CACHE), said)


def _check_folder(findings: Findings, path: Path, cache: Any) -> None:
    folder = mapping(cache).get("folder", cache)
    if not isinstance(folder, str):  # said by its type
        return
    if not folder:
        findings.error(path, "'', expected a folder, or nothing (~) for no cache")
        return
    file = expand(folder).absolute()
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):  # it is made
        pass
    except (OSError, ValueError) as error:  # a name of 1000 letters, or with a null in it
        findings.error(path, f"{show(folder)}, no folder can have this name: {getattr(error, 'strerror', None) or error}")
        return
    there = next(place for place in (file, *file.parents) if place.exists())
    if not there.is_dir():
        findings.error(path, f"{show(folder)}, {there} is a file, expected a folder")
    elif not os.access(there, os.W_OK):
        findings.warning(path, f"{show(folder)} cannot be written to: what is in it is used, and nothing is added")
