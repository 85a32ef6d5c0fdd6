"""Degraded images alone: a dataset without ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.data.data_util import paths_from_lmdb
from basicsr.utils import FileClient, imfrombytes
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from kd_plugins.data.crops import random_window, to_tensor
from kd_plugins.data.dataset_options import channels_of
from kd_plugins.data.photos import find_photos, load_image, luma


@DATASET_REGISTRY.register()  # pyright: ignore[reportOptionalCall]  (upstream has no annotations)
class DegradedImageDataset(Dataset):
    """Degraded images without clean ones: random crops to train on, whole images otherwise.

    Args:
        opt: The option block, in BasicSR's words:

            * dataroot_lq: The folder, searched with its sub-folders; for lmdb the database.
            * io_backend: ``{type: disk}`` or ``{type: lmdb}``.
            * meta_info_file: The images to take, a line each, by their path in the folder (disk only). Default: all.
            * gt_size: Side of a training crop of the restored image in pixels; the crop is smaller by ``scale``.
            * color: ``y`` for gray images, of one channel: the Y of YCbCr, as PairedImageDataset has it. Default: RGB.
            * use_hflip, use_rot: Random flips; random flips and quarter turns. Default: false.

            The loader's keys are basicsr's.

    Returns:
        Items ``{lq, lq_path}``: a float32 tensor (3, H, W), RGB in [0, 1]; the name of the file is that of ``lq_path``, with its
        folder's before it where two have the same, so that saved images are unique.

    Raises:
        FileNotFoundError: If the folder is missing or holds no image.
        KeyError: If a key is missing.
        ValueError: If a value is not allowed, an image cannot be read, or one is smaller than a crop.
    """

    unlabelled = True

    def __init__(self, opt: Mapping[str, Any]) -> None:
        """Check the option block and list the images."""
        super().__init__()
        self.opt = opt
        phase, scale = opt.get("phase"), int(opt.get("scale") or 1)
        self.train = phase == "train"
        for key in ("dataroot_lq", "io_backend", *(["gt_size"] if self.train else [])):
            if opt.get(key) is None:
                raise KeyError(f"the DegradedImageDataset of phase '{phase}' needs the key '{key}'")
        self.backend = dict(opt["io_backend"])
        if self.backend.get("type") not in ("disk", "lmdb"):
            raise ValueError(f"io_backend is {opt['io_backend']!r}; expected {{type: disk}} or {{type: lmdb}}")
        size = opt["gt_size"] if self.train else scale
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % scale:
            raise ValueError(f"gt_size is {size!r}; expected a whole number of pixels, a multiple of the scale, {scale}")
        self.size = size // scale
        self.channels = channels_of(opt) or 3
        self.hflip, self.rot = bool(opt.get("use_hflip", False)), bool(opt.get("use_rot", False))
        self.images = self._list(Path(opt["dataroot_lq"]).expanduser())
        self._client: FileClient | None = None  # opened by each worker itself

    def _list(self, root: Path) -> list[tuple[str, str]]:
        """What to read, and what to call it."""
        if self.backend["type"] == "lmdb":
            self.backend.update(db_paths=[str(root)], client_keys=["lq"])
            return [(key, f"{key}.png") for key in paths_from_lmdb(str(root))]
        chosen = self.opt.get("meta_info_file")
        lines = Path(chosen).expanduser().read_text(encoding="utf-8").splitlines() if chosen else []
        names = [line.split(" ")[0] for line in lines if line.strip()]
        photos = find_photos([root / name for name in names] if chosen else root, key="dataroot_lq")
        return [(photo.path, str(Path(photo.path).with_name(f"{photo.name}{Path(photo.path).suffix}"))) for photo in photos]

    def __len__(self) -> int:
        """Return the number of images; ``dataset_enlarge_ratio`` makes an epoch longer."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image, or a crop of it."""
        return self.seeded_item(index, int(torch.randint(2**32, (1,))) if self.train else 0)

    def seeded_item(self, index: int, seed: int) -> dict[str, Any]:
        """Return one image; in training its crop is a function of the seed (its lowest 32 bits)."""
        place, name = self.images[index]
        image = self._read(place)
        if self.channels == 1:
            image = np.ascontiguousarray(luma(np.ascontiguousarray(image))[..., :1])
        if self.train:
            height, width = image.shape[:2]
            if min(height, width) < self.size:
                raise ValueError(f"image '{place}' is {width}x{height}; expected at least {self.size} on each side, as a crop has")
            image = random_window(image, self.size, np.random.RandomState(seed % 2**32), self.hflip, self.rot)
        return {"lq": to_tensor(image.astype(np.float32) * np.float32(1 / 255)), "lq_path": name}

    def _read(self, place: str) -> np.ndarray:
        if self.backend["type"] == "disk":
            return load_image(place)
        if self._client is None:
            self._client = FileClient(**{"backend" if key == "type" else key: value for key, value in self.backend.items()})
        content = self._client.get(place, "lq")
        image = None if content is None else imfrombytes(content)
        if image is None:
            raise ValueError(f"image {place!r}, which the meta_info.txt of {self.opt['dataroot_lq']!r} names, cannot be read")
        return image[..., ::-1]
