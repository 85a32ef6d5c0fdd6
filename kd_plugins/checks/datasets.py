"""The keys of the datasets: those on a signature (`register_dataset`), and BasicSR's, whose datasets take their whole block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from basicsr.utils.registry import DATASET_REGISTRY

from kd_plugins.arguments import AtLeast, Count, Flag, Ordered, Share, Text
from kd_plugins.arguments.block_specs import Block, Many, Named, Spec, house_of, signature_block
from kd_plugins.checks.basicsr_forks import FORKS, RENAMED
from kd_plugins.data import TaskDataset
from kd_plugins.data.crop_stages import RESTORMER, STAGE, STAGES
from kd_plugins.data.dataset_registration import LOADER, takes_keywords

_BACKEND = Block("io_backend", {"type": Literal["disk", "lmdb", "memcached"]}, ("type",), every=Any)
_LOADER: dict[str, Spec] = {**LOADER, "io_backend": _BACKEND, STAGES: Many(lambda: STAGE), **RESTORMER}
_CROP: dict[str, Spec] = {"gt_size": Count, "use_hflip": Flag, "use_rot": Flag}
_NORMAL: dict[str, Spec] = {"mean": list[float] | None, "std": list[float] | None}
_PAIR: dict[str, Spec] = {**_NORMAL, **_CROP, "dataroot_gt": Text, "dataroot_lq": Text, "filename_tmpl": Text}
_CLIP: dict[str, Spec] = {**_CROP, "dataroot_gt": Text, "dataroot_lq": Text, "meta_info_file": Text, "num_frame": int}
_REDS: dict[str, Spec] = {
    **_CLIP,
    "dataroot_flow": Text,
    "val_partition": Text,
    "test_mode": Flag,
    "interval_list": list[int],
    "random_reverse": Flag,
    "flip_sequence": Flag,
}
_TEST_CLIP: dict[str, Spec] = {**_CLIP, "cache_data": Flag, "padding": Text, "use_duf_downsampling": Flag}
_BLUR: dict[str, Spec] = {
    "kernel_list": list[Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]],
    "kernel_prob": Annotated[list[float], AtLeast(0)],
    **dict.fromkeys(("blur_sigma", "betag_range", "betap_range"), Annotated[tuple[float, float], Ordered(), AtLeast(0)]),
    "sinc_prob": Share,
}
_KERNELS: dict[str, Spec] = {f"{key}{number}": spec for number in ("", "2") for key, spec in _BLUR.items()}
_KERNELS["final_sinc_prob"] = Share
_KEYS_OF_BASICSR: dict[str, dict[str, Spec]] = {
    "PairedImageDataset": {**_PAIR, "meta_info_file": Text, "color": Text},
    "RealESRGANPairedDataset": {**_PAIR, "meta_info": Text},
    "SingleImageDataset": {**_NORMAL, "dataroot_lq": Text, "meta_info_file": Text, "color": Text},
    "FFHQDataset": {**_NORMAL, "dataroot_gt": Text, "use_hflip": Flag},
    "RealESRGANDataset": {
        **_CROP,
        "dataroot_gt": Text,
        "meta_info": Text,
        **dict.fromkeys(("blur_kernel_size", "blur_kernel_size2"), int),  # read, and without effect: sizes are 7 to 21
        **_KERNELS,
    },
    **dict.fromkeys(("REDSDataset", "REDSRecurrentDataset", "Vimeo90KDataset", "Vimeo90KRecurrentDataset"), _REDS),
    **dict.fromkeys(
        ("VideoTestDataset", "VideoTestVimeo90KDataset", "VideoTestDUFDataset", "VideoRecurrentTestDataset"), _TEST_CLIP
    ),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "PairedImageDataset": ("dataroot_gt", "dataroot_lq", "io_backend"),
    "SingleImageDataset": ("dataroot_lq", "io_backend"),
    "RealESRGANDataset": ("dataroot_gt", "io_backend", "blur_kernel_size", "blur_kernel_size2", *_KERNELS),
}
LOADER_NEEDS = ("batch_size_per_gpu", "num_worker_per_gpu")
"""What training needs of any dataset."""


def training_needs(kind: object) -> tuple[str, ...]:
    """What else training needs of a dataset of a type."""
    needs = {"PairedImageDataset": ("gt_size", "use_hflip", "use_rot"), "RealESRGANDataset": ("use_hflip", "use_rot")}.get(
        str(kind), ()
    )
    return getattr(DATASETS.entries.get(str(kind)), "needed_in_training", needs)


def _block(cls: Callable[..., Any]) -> Block | None:
    if takes_keywords(cls):
        given = [key for key in LOADER if key != "io_backend"]  # the loader's keys stand beside a dataset's own
        return signature_block(cls, given, {"tasks": Many(lambda: _OF_ONE_TASK, named=True)})
    name = getattr(cls, "__name__", "")
    if name not in _KEYS_OF_BASICSR or house_of(cls) != "basicsr":
        return None
    return Block(name, _KEYS_OF_BASICSR[name], _NEEDED.get(name, ()))


DATASETS = Named(
    "dataset", DATASET_REGISTRY, _block, _LOADER, required=("name",), renamed=RENAMED["dataset"], forks=FORKS["dataset"]
)


def _block_of_one_task(cls: Callable[..., Any]) -> Block | None:
    if cls is TaskDataset:
        return Block("a task", every=Any, refused={"type": "inside of another, expected the data of one task"})
    return _block(cls)


_OF_ONE_TASK = replace(
    DATASETS, arguments=_block_of_one_task, beside={key: _LOADER[key] for key in ("name", "io_backend")}, required=()
)
"""What the loader reads stands beside `tasks`."""
