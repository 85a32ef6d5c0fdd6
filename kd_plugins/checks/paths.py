"""Files and folders that an option file names and that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import path as osp
from pathlib import Path as File
from typing import Any

from kd_plugins.archs.file_arch import find_file
from kd_plugins.arguments import Path
from kd_plugins.checks.datasets import DATASETS
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.image_files import check_images
from kd_plugins.checks.network_sources import NETWORK_KEYS, sources_of
from kd_plugins.checks.option_keys import our_model
from kd_plugins.data import TaskDataset, task_blocks
from kd_plugins.data.photos import find_photos
from kd_plugins.home import expand
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import show
from kd_plugins.teachers.checkpoint import find_weights
from kd_plugins.teachers.program_files import find_program

_SOURCE_FILES = {"checkpoint": find_weights, "file": find_file, "program": find_program}
_ROOTS, _LISTS = ("dataroot_gt", "dataroot_lq", "dataroot_flow"), ("meta_info_file", "meta_info")


def check_paths(findings: Findings, opt: Mapping[str, Any], is_train: bool, resumes: bool) -> None:
    """Report what is missing.

    Args:
        findings: where to.
        opt: the options.
        is_train: training, or test.
        resumes: whether the networks come from a saved state: their pretrained files are not read then.
    """
    for path, dataset in image_datasets(opt):
        _check_dataset(findings, path, dataset)
    paths = mapping(opt.get("path"))
    if is_train:
        _check(findings, ("path", "resume_state"), paths.get("resume_state"), osp.isfile)
    for key, value in paths.items():
        if str(key).startswith("pretrain_network") and not resumes:
            _check(findings, ("path", str(key)), value, osp.isfile)
    for path, name in findings.files.items():
        if is_train or path[0] in ("val", "datasets", *NETWORK_KEYS):
            _check(findings, path, name)
    for path, block in sources_of(opt, is_ours=our_model(opt) is not None):
        for key, find in _SOURCE_FILES.items():
            if isinstance(value := block.get(key), str):
                _attempt(findings, (*path, key), find, value)


def image_datasets(opt: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    """The blocks of the datasets that read images: those of its tasks in place of a TaskDataset."""
    for phase, dataset in blocks_in(opt.get("datasets")):
        if tasks := task_blocks(dataset):
            yield from ((("datasets", phase, "tasks", task), block) for task, block in tasks.items())
        elif dataset.get("type") != TaskDataset.__name__:
            yield ("datasets", phase), dataset


def _check_dataset(findings: Findings, path: Path, dataset: Mapping[Any, Any]) -> None:
    kind = dataset.get("type")
    if not isinstance(kind, str) or kind not in DATASETS.entries or DATASETS.block_of(kind) is None:
        return
    for key in (*_ROOTS, *_LISTS):
        for place in value if isinstance(value := dataset.get(key), list) else [value]:
            _check(findings, (*path, key), place, osp.isfile if key in _LISTS else _is_either)
    photos = dataset.get("photos")
    if kind == "DegradedPhotoDataset" and photos != "builtin" and isinstance(photos, (str, list)):
        _attempt(findings, (*path, "photos"), find_photos, photos)
    check_images(findings, path, dataset)


def _is_either(path: File) -> bool:
    return osp.isfile(path) or osp.isdir(path)


def _check(findings: Findings, path: Path, value: Any, is_right: Callable[[File], bool] = _is_either) -> None:
    """Report what is not there, or of another kind: reading a pipe would wait without end."""
    if not isinstance(value, str) or findings.has_error(path):
        return
    if not value or not osp.exists(place := expand(value)):
        findings.error(path, f"{show(value)}, no such file or folder{_where(value)}")
    elif not is_right(place):
        findings.error(path, f"{show(value)}, expected a file{' or a folder' * (is_right is _is_either)}, and it is something else")


def _attempt(findings: Findings, path: Path, find: Any, value: Any) -> None:
    if findings.has_error(path):
        return
    try:
        find(value)
    except (FileNotFoundError, TypeError, ValueError) as error:
        text = str(error).removeprefix(f"{path[-1]}: ")
        said = not isinstance(error, FileNotFoundError) or "(looked from " in text
        findings.error(path, text if said else f"{text}{_where(value)}")


def _where(value: Any) -> str:
    return f" (looked from {osp.abspath(osp.curdir)})" if isinstance(value, str) and value and not osp.isabs(value) else ""
