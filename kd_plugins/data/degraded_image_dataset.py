"""Degraded images alone: a dataset without ground truth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from basicsr.data.data_util import paths_from_lmdb
from basicsr.utils import FileClient, imfrombytes
from torch.utils.data import Dataset

from kd_plugins.arguments import Count, Flag
from kd_plugins.data.crops import random_window, to_tensor
from kd_plugins.data.dataset_registration import Phase, register_dataset
from kd_plugins.data.photos import find_photos, listed_photos, load_image, luma
from kd_plugins.home import expand


@register_dataset
class DegradedImageDataset(Dataset):
    """Degraded images without clean ones: random crops to train on, whole images otherwise.

    Args:
        dataroot_lq: The folder, searched with its sub-folders; for lmdb the database.
        io_backend: ``{type: disk}`` or ``{type: lmdb}``.
        meta_info_file: The images to take, a line each, by their path in the folder (disk only). Default: all.
        gt_size: Side of a training crop of the restored image in pixels; the crop is smaller by ``scale``.
        color: ``y`` for gray images, of one channel: the Y of YCbCr, as PairedImageDataset has it. Default: RGB.
        use_hflip: Random flips.
        use_rot: Random flips and quarter turns.
        phase: What the items are for.
        scale: How many times larger a restored image is.

    Returns:
        Items ``{lq, lq_path}``: a float32 tensor (3, H, W), RGB in [0, 1]; the name of the file is that of ``lq_path``, with its
        folder's before it where two have the same, so that saved images are unique.

    Raises:
        FileNotFoundError: If the folder is missing or holds no image.
        ValueError: If a key is missing or misspelt, a value is not allowed, an image cannot be read, or one is smaller than a crop.
    """

    unlabelled = True
    needed_in_training = ("gt_size",)
    opt: Mapping[str, Any]

    def __init__(
        self,
        dataroot_lq: str,
        io_backend: Mapping[str, Any],
        meta_info_file: str | os.PathLike[str] | None = None,
        gt_size: Count = None,
        color: Literal["y", None] = None,
        use_hflip: Flag = False,
        use_rot: Flag = False,
        phase: Phase = "train",
        scale: Count = 1,
    ) -> None:
        """List the images."""
        super().__init__()
        self.train = phase == "train"
        self.backend = dict(io_backend)
        if self.backend.get("type") not in ("disk", "lmdb"):
            raise ValueError(f"io_backend: {io_backend!r}, expected {{type: disk}} or {{type: lmdb}}")
        size, scale = gt_size or 0, scale or 1
        if self.train and size % scale:
            raise ValueError(f"gt_size: {size}, expected a multiple of the scale, {scale}")
        self.size = size // scale
        self.channels = 1 if color == "y" else 3
        self.hflip, self.rot = bool(use_hflip), bool(use_rot)
        self.root = expand(dataroot_lq)
        self.images = self._list(meta_info_file)
        self._client: FileClient | None = None  # opened by each worker itself

    def _list(self, meta_info_file: str | os.PathLike[str] | None) -> list[tuple[str, str]]:
        """What to read, and what to call it."""
        root = self.root
        if self.backend["type"] == "lmdb":
            self.backend.update(db_paths=[str(root)], client_keys=["lq"])
            return [(key, f"{key}.png") for key in paths_from_lmdb(str(root))]
        photos = listed_photos(root, meta_info_file, "dataroot_lq") if meta_info_file else find_photos(root, key="dataroot_lq")
        return [(photo.path, str(Path(photo.path).with_name(f"{photo.name}{Path(photo.path).suffix}"))) for photo in photos]

    def __len__(self) -> int:
        """Return the number of images; ``dataset_enlarge_ratio`` makes an epoch longer."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image, or a crop of it."""
        return self.seeded_item(index, int(torch.randint(2**32, (1,))) if self.train else 0)

    def seeded_item(self, index: int, seed: int) -> dict[str, Any]:
        """Return one image; in training its crop is a function of the seed (its lowest 32 bits)."""
        path, name = self.images[index]
        image = self._read(path)
        if self.channels == 1:
            image = np.ascontiguousarray(luma(np.ascontiguousarray(image))[..., :1])
        if self.train:
            height, width = image.shape[:2]
            if min(height, width) < self.size:
                raise ValueError(f"image '{path}' is {width}x{height}, expected at least the crop's {self.size} on each side")
            image = random_window(image, self.size, np.random.RandomState(seed % 2**32), self.hflip, self.rot)
        return {"lq": to_tensor(image.astype(np.float32) * np.float32(1 / 255)), "lq_path": name}

    def _read(self, path: str) -> np.ndarray:
        if self.backend["type"] == "disk":
            return load_image(path)
        if self._client is None:
            options = dict(self.backend)
            self._client = FileClient(options.pop("type"), **options)
        content = self._client.get(path, "lq")
        image = None if content is None else imfrombytes(content)
        if image is None:
            raise ValueError(f"image {path!r}, which the meta_info.txt of {str(self.root)!r} names, cannot be read")
        return image[..., ::-1]
