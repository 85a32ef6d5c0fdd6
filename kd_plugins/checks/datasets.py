"""The keys of the datasets. A dataset takes its whole block as one argument, so that no signature has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from basicsr.utils.registry import DATASET_REGISTRY

from kd_plugins.arguments import Above, Count, Flag, Held, OwnName, Text, Workers
from kd_plugins.checks.basicsr_forks import FORKS, RENAMED
from kd_plugins.checks.block_specs import Block, Many, Named, Spec, house_of, signature_block
from kd_plugins.data import TaskDataset
from kd_plugins.data.degradations import DEGRADATION_REGISTRY

DEGRADATION = Named("degradation", DEGRADATION_REGISTRY, signature_block, many=True)

LOADER: dict[str, Spec] = {
    "name": OwnName | float,
    "phase": Any,  # filled in
    "scale": int | None,  # filled in where the file has one
    "use_shuffle": Flag,
    "num_worker_per_gpu": Workers,
    "batch_size_per_gpu": Held,
    "pin_memory": Flag,
    "dataset_enlarge_ratio": Annotated[float, Above(0)],
    "prefetch_mode": Literal["cpu", "cuda", None],
    "num_prefetch_queue": Held,
    "persistent_workers": Flag,
    "on_bad_image": Literal["stop", "skip", None],
    "io_backend": Block("io_backend", {"type": Literal["disk", "lmdb", "memcached"]}, ("type",), every=Any),
}
_CROP: dict[str, Spec] = {"gt_size": Count, "use_hflip": Flag, "use_rot": Flag}
_NORMAL: dict[str, Spec] = {"mean": list[float] | None, "std": list[float] | None}
_PAIR: dict[str, Spec] = {**_NORMAL, **_CROP, "dataroot_gt": Text, "dataroot_lq": Text, "filename_tmpl": Text}
_CLIP: dict[str, Spec] = {**_CROP, "dataroot_gt": Text, "dataroot_lq": Text, "meta_info_file": Text, "num_frame": int}
_REDS: dict[str, Spec] = {
    **{**_CLIP, "dataroot_flow": Text, "val_partition": Text, "test_mode": Flag},
    **{"interval_list": list[int], "random_reverse": Flag, "flip_sequence": Flag},
}
_TEST_CLIP: dict[str, Spec] = {**_CLIP, "cache_data": Flag, "padding": Text, "use_duf_downsampling": Flag}
_BLUR = ("kernel_list", "kernel_prob", "blur_sigma", "betag_range", "betap_range", "blur_kernel_size", "sinc_prob")
_KEYS: dict[str, dict[str, Spec]] = {
    "DegradedPhotoDataset": {
        **_CROP,
        **{
            "photos": str | list[str],
            "split": Literal["train", "val", None],
            "degradation": DEGRADATION,
            "seed": Any,
            "color": Literal["y", None],
            "cache": Flag,
            "unlabelled": Flag,
        },
    },
    "TaskDataset": {"tasks": Many(lambda: _OF_ONE_TASK, named=True)},
    "DegradedImageDataset": {**_CROP, "dataroot_lq": Text, "meta_info_file": Text, "color": Literal["y", None]},
    "PairedImageDataset": {**_PAIR, "meta_info_file": Text, "color": Text},
    "RealESRGANPairedDataset": {**_PAIR, "meta_info": Text},
    "SingleImageDataset": {**_NORMAL, "dataroot_lq": Text, "meta_info_file": Text, "color": Text},
    "FFHQDataset": {**_NORMAL, "dataroot_gt": Text, "use_hflip": Flag},
    "RealESRGANDataset": {
        **{**_CROP, "dataroot_gt": Text, "meta_info": Text, "final_sinc_prob": float},
        **dict.fromkeys((*_BLUR, *(f"{key}2" for key in _BLUR)), Any),
    },
    **dict.fromkeys(("REDSDataset", "REDSRecurrentDataset", "Vimeo90KDataset", "Vimeo90KRecurrentDataset"), _REDS),
    **dict.fromkeys(
        ("VideoTestDataset", "VideoTestVimeo90KDataset", "VideoTestDUFDataset", "VideoRecurrentTestDataset"), _TEST_CLIP
    ),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "DegradedPhotoDataset": ("photos", "degradation"),
    "DegradedImageDataset": ("dataroot_lq", "io_backend"),
    "PairedImageDataset": ("dataroot_gt", "dataroot_lq", "io_backend"),
    "SingleImageDataset": ("dataroot_lq", "io_backend"),
    "TaskDataset": ("tasks",),
}
TRAINING_NEEDS: dict[str, tuple[str, ...]] = {
    "": ("batch_size_per_gpu", "num_worker_per_gpu"),
    "DegradedPhotoDataset": ("gt_size",),
    "DegradedImageDataset": ("gt_size",),
    "PairedImageDataset": ("gt_size", "use_hflip", "use_rot"),
}
"""What else a dataset needs in training, by its type; '' for all."""


def _block(cls: Callable[..., Any]) -> Block | None:
    name = getattr(cls, "__name__", "")
    if name not in _KEYS or house_of(cls) not in ("kd_plugins", "basicsr"):
        return None
    return Block(name, _KEYS[name], _NEEDED.get(name, ()))


DATASETS = Named(
    "dataset", DATASET_REGISTRY, _block, LOADER, required=("name",), renamed=RENAMED["dataset"], forks=FORKS["dataset"]
)


def _block_of_one_task(cls: Callable[..., Any]) -> Block | None:
    if cls is TaskDataset:
        return Block("a task", every=Any, refused={"type": "inside of another, expected the data of one task"})
    return _block(cls)


_OF_ONE_TASK = replace(
    DATASETS, arguments=_block_of_one_task, beside={key: LOADER[key] for key in ("name", "io_backend")}, required=()
)
"""What the loader reads stands beside `tasks`."""
