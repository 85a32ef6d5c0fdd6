"""A dataset that reads clean photos and degrades them as they are read."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

import numpy as np
import torch
from basicsr.utils import get_root_logger
from torch.utils.data import Dataset

from kd_plugins.arguments import Above, Block, Count, Flag, require
from kd_plugins.data.crops import random_window, to_tensor
from kd_plugins.data.dataset_registration import Phase, register_dataset
from kd_plugins.data.decoded import DecodedImages
from kd_plugins.data.degradations import DEGRADATION, build_degradation
from kd_plugins.data.photos import Photo, find_photos, listed_photos, luma

CACHE = Block("cache", {"gigabytes": Annotated[float, Above(0)]}, ("gigabytes",), words=(True, False))
_FIRST, _FIRST_BYTES = 1000, 2**28  # of the photos that are decoded when a dataset is built


@register_dataset
class DegradedPhotoDataset(Dataset):
    """Pairs made of clean photos: a random crop with a new degradation each time, or whole photos with a fixed one.

    With ``phase: train`` an item is a random crop, flipped and rotated, then degraded: rain keeps its direction. The
    randomness is a function of (``manual_seed``, epoch, position in it) in `basicsr train`, and torch's elsewhere, which
    the loader seeds anew for every worker and epoch (basicsr seeds numpy's and Python's alike in every epoch). With
    ``phase: val`` or ``test`` an item is a whole photo, degraded from (``seed``, file name) alone: the same at every call,
    in every process and on every platform (to a rounding step of 1/255).

    Args:
        photos: ``builtin``, a folder (with its sub-folders), or a list of folders and files.
        degradation: ``{type: rain | noise | blur | defocus | downsample, <arguments>}`` or a list of these, applied in order. What
            it makes smaller must be the ``scale``.
        meta_info_file: The photos of the folder to take, a line each, by their path in it. Default: all.
        split: ``train`` or ``val``, for ``builtin`` only. Default: by the phase.
        gt_size: Side of a training crop of the clean photo in pixels.
        use_hflip: Random flips.
        use_rot: Random flips and quarter turns.
        seed: Of the validation's degradation.
        cache: Keep decoded photos in memory, as uint8, as far as a third of what is free; ``{gigabytes: 4}`` is another bound.
        color: ``y`` for gray photos, of one channel: the Y of YCbCr, as PairedImageDataset has it. Default: RGB.
        unlabelled: Withhold the clean photos, to try what training without them does.
        phase: What the items are for.
        scale: How many times smaller the degraded photo is.
        name: Of the dataset, for messages.
        on_bad_image: ``skip`` leaves out photos that cannot be decoded, with a warning.

    Returns:
        Items ``{lq, gt, lq_path, gt_path}``: float32 tensors (3, H, W), RGB, or (1, H, W), ``lq`` smaller by the scale (a photo
        whose sides it does not divide is cut to fit); ``gt`` in [0, 1], and ``lq`` too except for noise without ``clip``. The
        names in ``lq_path`` are unique, so that saved images are. Without ``gt`` and ``gt_path`` where they are ``unlabelled``.

    Raises:
        FileNotFoundError: If a folder is missing or holds no image.
        ValueError: If a key is missing or misspelt, a value is not allowed, or a photo is smaller than ``gt_size``.
    """

    needed_in_training = ("gt_size",)
    opt: Mapping[str, Any]

    def __init__(
        self,
        photos: str | Sequence[str],
        degradation: Annotated[Mapping[str, Any] | Sequence[Mapping[str, Any]], DEGRADATION],
        meta_info_file: str | os.PathLike[str] | None = None,
        split: Literal["train", "val", None] = None,
        gt_size: Count = None,
        use_hflip: Flag = False,
        use_rot: Flag = False,
        seed: Any = 0,
        cache: Annotated[Mapping[str, Any] | bool | None, CACHE] = True,
        color: Literal["y", None] = None,
        unlabelled: Flag = False,
        phase: Phase = "train",
        scale: Count = 1,
        name: str | float | None = None,
        on_bad_image: Literal["stop", "skip", None] = None,
    ) -> None:
        """List and decode the photos."""
        super().__init__()
        self.train = phase == "train"
        self.degrade = build_degradation(degradation)
        factor, size = self.degrade.factor, gt_size or 0
        if factor != scale:
            raise ValueError(f"degradation: makes images {factor} times smaller, expected {scale}, the option file's scale")
        if self.train and size % factor:
            raise ValueError(f"gt_size: {size}, expected a multiple of the scale, {factor}")
        self.hflip, self.rot, self.seed, self.unlabelled = bool(use_hflip), bool(use_rot), seed, bool(unlabelled)
        self.gt_size = size if self.train else 0
        self.channels = 1 if color == "y" else 3
        self.name, self.skips = name, on_bad_image == "skip"
        if meta_info_file is None:
            self.photos: list[Photo] = find_photos(photos, split or ("train" if self.train else "val"))
        elif isinstance(photos, str) and photos != "builtin":
            self.photos = listed_photos(photos, meta_info_file)
        else:
            raise ValueError(f"meta_info_file is {str(meta_info_file)!r}; expected photos to be a folder, it is {photos!r}")
        # Seeded anew for each item; kept, since making one costs as much as a crop of rain.
        self._rng = np.random.RandomState(0)
        require(CACHE, cache, ("cache",))
        self._decoded: DecodedImages | None = None
        if cache:
            bound = cache["gigabytes"] if isinstance(cache, Mapping) else None
            self._decoded = DecodedImages(len(self.photos), bound, name)
            self.photos = self._decode_first(self._decoded)

    def _decode_first(self, decoded: DecodedImages) -> list[Photo]:
        """Decode the first photos at once, to find bad ones before there is a run; returns those that can be used."""
        good: list[Photo] = []
        size = 0
        for number, photo in enumerate(self.photos):
            if number == _FIRST or size > _FIRST_BYTES:
                return [*good, *self.photos[number:]]
            try:
                size += decoded.get(len(good), functools.partial(self._load, photo)).nbytes
                good.append(photo)
            except (OSError, ValueError) as error:
                if not self.skips:
                    raise ValueError(f"dataset {self.name!r}: {error}") from error
                get_root_logger().warning(f"dataset {self.name!r}: {error}; left out.")
        if not good:
            raise ValueError(f"dataset {self.name!r}: none of its {len(self.photos)} photos can be used")
        return good

    def _load(self, photo: Photo) -> np.ndarray:
        image = photo.load()
        height, width = image.shape[:2]
        if min(height, width) < self.gt_size:
            raise ValueError(f"photo '{photo.path}' is {width}x{height}; expected at least gt_size = {self.gt_size} on each side")
        return luma(image) if self.channels == 1 else image

    def __len__(self) -> int:
        """Return the number of photos; ``dataset_enlarge_ratio`` makes an epoch longer."""
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pair."""
        return self.seeded_item(index, int(torch.randint(2**32, (1,))) if self.train else 0)

    def seeded_item(self, index: int, seed: int) -> dict[str, Any]:
        """Return one pair; in training its crop and degradation are a function of the seed (its lowest 32 bits)."""
        photo = self.photos[index]
        load = functools.partial(self._load, photo)
        image = load() if self._decoded is None else self._decoded.get(index, load)
        if self.train:
            gt, lq = self._random_pair(image, seed)
        else:
            height, width = (side // self.degrade.factor * self.degrade.factor for side in image.shape[:2])
            gt = image[:height, :width].astype(np.float32) * np.float32(1 / 255)
            lq = self.degrade(gt, validation_rng(self.seed, photo.path))
        gt, lq = (np.ascontiguousarray(each[..., : self.channels]) for each in (gt, lq))
        item = {"lq": to_tensor(lq), "lq_path": f"{photo.name}.png"}
        return item if self.unlabelled else {**item, "gt": to_tensor(gt), "gt_path": photo.path}

    def _random_pair(self, image: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self._rng
        rng.seed(seed % 2**32)
        size, factor = self.gt_size, self.degrade.factor
        margin = -(-self.degrade.margin // factor) * factor
        window = random_window(image, size, rng, self.hflip, self.rot, margin)
        gt = np.ascontiguousarray(window).astype(np.float32) * np.float32(1 / 255)
        lq = self.degrade(gt, rng)
        inner, small = slice(margin, margin + size), slice(margin // factor, (margin + size) // factor)
        return gt[inner, inner], lq[small, small]


def validation_rng(seed: object, path: str) -> np.random.RandomState:
    """Return the random numbers of one validation photo, a function of the seed and its file's name alone."""
    digest = hashlib.sha256(f"{seed}/{PurePath(path).name}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))
