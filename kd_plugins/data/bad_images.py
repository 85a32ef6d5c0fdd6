"""Images that cannot be read during a run: the run ends with one sentence, or skips them where the option file says so."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import partial
from os import path as osp
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.utils import get_root_logger
from torch.utils.data import Dataset

from kd_plugins.errors import BadData, RunStopped

SKIPPED = "skipped"
"""The key of an item that lists the bad images which a training dataset skipped before it, a line each."""
IN_A_ROW = 100
"""So many bad images in a row end a run that skips them: the disk is at fault then, not an image."""


class ReadableItems(Dataset):
    """A dataset whose items can be read, or a `BadData` that says why not.

    Args:
        dataset: any dataset with its option block in `opt`; ``on_bad_image: skip`` in it passes over a bad image: in training the
            next one takes its place, and the item names it under `SKIPPED`; in validation the item is None.

    Attributes:
        opt: the block.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.opt = dataset, getattr(dataset, "opt", {})
        self.train, self.skips = self.opt.get("phase") == "train", self.opt.get("on_bad_image") == "skip"
        self._compared: set[int] = set()
        self._passed: set[str] = set()
        if hasattr(dataset, "seeded_item"):
            self.seeded_item = self._seeded_item

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._read(index, self.dataset.__getitem__)

    def _seeded_item(self, index: int, seed: int) -> Any:
        return self._read(index, partial(self.dataset.seeded_item, seed=seed))

    def _read(self, index: int, get: Callable[[int], Any]) -> Any:
        if index >= len(self.dataset):  # the end of an iteration
            raise IndexError(f"index {index} of {len(self.dataset)}")
        wrong: list[str] = []
        for step in range(min(len(self.dataset), IN_A_ROW) if self.train and self.skips else 1):
            candidate = (index + step) % len(self.dataset)
            try:
                item = get(candidate)
                self._compare(candidate)
            except RunStopped:
                raise
            except Exception as error:
                wrong.append(f"dataset {self.opt.get('name')!r}: {what_is_wrong(self.dataset, candidate, error)}")
                if not self.skips or isinstance(error, MemoryError):
                    raise BadData(wrong[-1]) from error
            else:
                if not (self.train and self.skips):
                    return item
                return {**item, SKIPPED: "\n".join(filter(None, [*wrong, item.get(SKIPPED)]))}
        if self.train:
            raise BadData(f"{len(wrong)} images in a row cannot be used; the first: {wrong[0]}")
        if wrong[0] not in self._passed:
            self._passed.add(wrong[0])
            get_root_logger().warning(f"{wrong[0]}; left out of the scores ({len(self._passed)} of {len(self)} so far).")
        return None

    def _compare(self, index: int) -> None:
        """Compare the sizes of a validation pair, once: BasicSR crops a larger clean image without a word."""
        if self.train or index in self._compared:
            return
        self._compared.add(index)
        files = _files(self.dataset, index)
        if len(files) == 2 and (text := _size_fault(files, _sizes(self.dataset, files), self.opt)):
            raise ValueError(text)


def what_is_wrong(dataset: Any, index: int, error: Exception) -> str:
    """Say why an item cannot be read: the file, and what is wrong with it.

    Args:
        dataset: one of BasicSR's that keeps its files in `paths`, or any other.
        index: of the item.
        error: what was raised.
    """
    files = _files(dataset, index)
    try:
        if text := _size_fault(files, _sizes(dataset, files), dataset.opt):
            return text
    except ValueError as found:
        return str(found)
    if isinstance(error, OSError) and error.filename:
        return f"image {str(error.filename)!r} cannot be read: {error.strerror}"
    if isinstance(error, ValueError) and len(error.args) == 1:
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"item {index}: {type(error).__name__}: {error} ({osp.basename(frame.filename)}:{frame.lineno})"


def _files(dataset: Any, index: int) -> dict[str, str]:
    """The files of an item by their keys, where the dataset keeps them as BasicSR's do."""
    paths = getattr(dataset, "paths", None)
    entry = paths[index] if isinstance(paths, list) and index < len(paths) else None
    if isinstance(entry, Mapping):
        return {key: entry[f"{key}_path"] for key in ("gt", "lq") if isinstance(entry.get(f"{key}_path"), str)}
    return {"lq" if "dataroot_lq" in dataset.opt else "gt": entry} if isinstance(entry, str) else {}


def _sizes(dataset: Any, files: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Width and height of each file's image.

    Raises:
        ValueError: one cannot be read.
    """
    client, sizes = getattr(dataset, "file_client", None), {}
    for key, file in files.items():
        try:
            content = client.get(file, key) if client is not None else Path(file).read_bytes()
        except OSError as error:
            raise ValueError(f"image {file!r} cannot be read: {error.strerror}") from error
        if content is None:
            raise ValueError(f"image {file!r} is not in {dataset.opt.get(f'dataroot_{key}')!r}")
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if len(content) else None
        except cv2.error:
            image = None
        if image is None:
            raise ValueError(f"image {file!r} {'cannot be decoded' if len(content) else 'is empty'}")
        sizes[key] = (image.shape[1], image.shape[0])
    return sizes


def _size_fault(files: Mapping[str, str], sizes: Mapping[str, tuple[int, int]], opt: Mapping[str, Any]) -> str:
    """What is wrong with the sizes of a pair: in training they fit to the pixel, else up to a remainder below the scale."""
    scale, crop = opt.get("scale") or 1, opt.get("gt_size")
    train = opt.get("phase") == "train"
    if {"gt", "lq"} <= sizes.keys():
        (width, height), small = sizes["gt"], sizes["lq"]
        fits = sizes["gt"] == (small[0] * scale, small[1] * scale) if train else (width // scale, height // scale) == small
        if not fits:
            times = "the same size" if scale == 1 else f"{scale} times its size"
            return f"image {files['gt']!r} is {width}x{height}, expected {times}, {small[0]}x{small[1]} of {files['lq']!r}"
        if train and isinstance(crop, int) and min(width, height) < crop:
            return f"image {files['gt']!r} is {width}x{height}, smaller than the crop, gt_size {crop}"
    return ""
