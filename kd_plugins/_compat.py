"""Every repair that basicsr 1.4.2 and torchvision need on today's PyTorch, one function each.

Nothing else in this package patches a library. Each repair looks first whether it is needed and does nothing otherwise.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import time
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TORCHVISION_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
IMAGE_SUFFIXES = frozenset(
    (*(".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".bmp", ".dib"), *(".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"))
)
"""How the names of image files end, in small letters: of those that OpenCV reads, all whose values are whole numbers."""
_LIBRARIES: list[torch.library.Library] = []  # a definition lives only as long as its Library object


def define_torchvision_operators() -> None:
    """Let `import torchvision` work where its compiled extension does not load.

    torchvision/_meta_registrations.py registers shape functions for `torchvision::nms` and `torchvision::qnms` without
    looking whether the operators exist: a torch whose build differs from torchvision's then cannot import it.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _TORCHVISION_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _LIBRARIES.append(library)
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]  # what the failed import left half-made
    importlib.import_module("torchvision")


def restore_functional_tensor() -> None:
    """Give back `torchvision.transforms.functional_tensor`, removed in torchvision 0.17.

    basicsr/data/degradations.py line 8 imports `rgb_to_grayscale` from it.
    """
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms import functional

    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # find_spec refuses a loaded module without one
    module.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = module


class _FirstStays(dict):
    """A registry's map in which a name that is taken keeps its object."""

    def __contains__(self, name: object) -> bool:
        return False

    def __setitem__(self, name: Any, value: Any) -> None:
        self.setdefault(name, value)


@contextmanager
def tolerant_registry(registry: Any) -> Iterator[None]:
    """While code of others is imported: registering a name that is taken does nothing.

    basicsr/utils/registry.py line 42 asserts that the name is free; the class files of BasicSR's forks register names that BasicSR
    itself, or another fork's file, has already.
    """
    names = registry._obj_map
    registry._obj_map = _FirstStays(names)
    try:
        yield
    finally:
        names.update(registry._obj_map)
        registry._obj_map = names


def _start_torchrun(backend: str = "nccl", **kwargs: Any) -> None:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count())
    torch.distributed.init_process_group(backend if on_gpu else "gloo", **kwargs)


def _start_slurm(backend: str = "nccl", port: int | str | None = None) -> None:
    own = os.environ
    address = subprocess.getoutput(f"scontrol show hostname {own['SLURM_NODELIST']} | head -n1")
    port = port or own.get("MASTER_PORT", 29500)
    own.update(RANK=own["SLURM_PROCID"], WORLD_SIZE=own["SLURM_NTASKS"], MASTER_ADDR=address, MASTER_PORT=str(port))
    own["LOCAL_RANK"] = own.get("SLURM_LOCALID", own["SLURM_PROCID"])
    _start_torchrun(backend)


def start_processes_without_gpus() -> None:
    """Let `--launcher` work on the CPU, too: gloo in place of nccl there.

    basicsr/utils/dist_util.py lines 23 and 44 count processes modulo the GPUs, which are 0 there, lines 24 and 45 set one of them,
    and nccl needs some. The GPU of a process is the one of its number on its node, not (line 24) of its number in all nodes.
    """
    from basicsr.utils import dist_util

    dist_util._init_dist_pytorch = _start_torchrun
    dist_util._init_dist_slurm = _start_slurm


def wrap_networks_without_gpus() -> None:
    """Let BasicSR's models train in several processes on the CPU.

    basicsr/models/base_model.py line 94 gives DistributedDataParallel the current GPU whatever device the network is on.
    """
    from basicsr.models.base_model import BaseModel

    original = BaseModel.model_to_device
    if original.__module__ == __name__:
        return

    def model_to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
        if not self.opt["dist"] or self.device.type == "cuda":
            return original(self, net)
        find_unused = self.opt.get("find_unused_parameters", False)
        return torch.nn.parallel.DistributedDataParallel(net.to(self.device), find_unused_parameters=find_unused)

    BaseModel.model_to_device = model_to_device


def list_images_only() -> None:
    """Let BasicSR's datasets pass over files that are no images, such as Thumbs.db.

    They take every file of a folder for one: basicsr/data/data_util.py lines 28, 219, 220 and 244, single_image_dataset.py line 45,
    video_test_dataset.py lines 72 and 73.
    """
    from basicsr.data import data_util, single_image_dataset, video_test_dataset

    for module in (data_util, single_image_dataset, video_test_dataset):
        original = module.scandir
        if original.__module__ != __name__:
            module.scandir = _images_of(original)  # type: ignore[attr-defined]


def _images_of(scandir: Any) -> Any:
    def images(*args: Any, **kwargs: Any) -> Iterator[str]:
        return (name for name in scandir(*args, **kwargs) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)

    return images


def archive_under_new_names() -> None:
    """Let two runs of a name that begin within one second archive what was there before them.

    basicsr/utils/misc.py line 38 names an archive by the second, and fails where that name is taken.
    """
    import basicsr.utils
    from basicsr.utils import misc

    original = misc.mkdir_and_rename
    if original.__module__ == __name__:
        return

    def mkdir_and_rename(path: str) -> None:
        while os.path.exists(f"{path}_archived_{misc.get_time_str()}"):
            time.sleep(0.05)
        original(path)

    misc.mkdir_and_rename = basicsr.utils.mkdir_and_rename = mkdir_and_rename


def repair_wandb() -> None:
    """Give wandb the function that basicsr/utils/logger.py line 138 names a run by, which it no longer has."""
    util = importlib.import_module("wandb").util
    if not hasattr(util, "generate_id"):
        util.generate_id = lambda: uuid.uuid4().hex[:8]  # type: ignore[attr-defined]


def apply() -> None:
    """Run every repair. Called by `kd_plugins.register`."""
    define_torchvision_operators()
    restore_functional_tensor()
    start_processes_without_gpus()
    wrap_networks_without_gpus()
    list_images_only()
    archive_under_new_names()
