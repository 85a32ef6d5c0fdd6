"""Real-ESRGAN's degradation (Wang et al., arXiv 2107.10833), by BasicSR's own code, which runs it on the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import torch
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp, get_root_logger
from torch import Tensor

from kd_plugins import distributed
from kd_plugins.arguments import AtLeast, Between, Block, Count, Flag, Ordered, Share, require

KERNEL = "kernel1"
"""The key of a batch that has kernels in place of degraded images, as that of BasicSR's RealESRGANDataset."""
SHARPENED = {"pixel_opt": "l1_gt_usm", "perceptual_opt": "percep_gt_usm", "gan_opt": "gan_gt_usm"}
"""By the key of a loss in `train`: the option by which it compares with the sharpened clean image."""
CROP = 400
"""The side of RealESRGANDataset's images."""

_Odds = tuple[Annotated[float, AtLeast(0)], Annotated[float, AtLeast(0)], Annotated[float, AtLeast(0)]]
_Bounds = Annotated[tuple[float, float], Ordered(), AtLeast(0)]
_Quality = Annotated[tuple[float, float], Ordered(), Between(1, 100)]
_PASSES: dict[str, Any] = {
    "resize_prob": _Odds,  # up, down, keep
    "resize_range": _Bounds,
    "gaussian_noise_prob": Share,
    "noise_range": _Bounds,
    "poisson_scale_range": _Bounds,
    "gray_noise_prob": Share,
    "jpeg_range": _Quality,
}
_NEEDED: dict[str, Any] = {
    **{f"{key}{number}": hint for number in ("", "2") for key, hint in _PASSES.items()},
    "second_blur_prob": Share,
    "gt_size": Annotated[int, AtLeast(1)],
}
OPTIONS: dict[str, Any] = {
    **_NEEDED,
    "queue_size": Count,
    "high_order_degradation": Flag,
    **dict.fromkeys(("gt_usm", *SHARPENED.values()), Flag),
}
"""The keys that Real-ESRGAN's option files have at the top, and what may stand after each."""


def faults(opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the options of a run on kernels: pairs of a key at the top and words."""
    for key in _NEEDED:
        if opt.get(key) is None:
            yield key, "missing, the degradation of Real-ESRGAN needs it"
    if opt.get("gt_usm") is None and all(opt.get(key) is None for key in SHARPENED.values()):
        yield "gt_usm", f"missing, expected true or false, or {', '.join(SHARPENED.values())} in its place"
    if opt.get("high_order_degradation") is False:
        yield "high_order_degradation", "false, expected data that is degraded already: RealESRGANPairedDataset"
    scale, size, pool = opt.get("scale") or 1, opt.get("gt_size"), opt.get("queue_size") or _POOL
    batch = (opt.get("datasets") or {}).get("train", {}).get("batch_size_per_gpu")
    if isinstance(size, int) and isinstance(scale, int) and size % scale:
        yield "gt_size", f"{size}, expected a multiple of the scale, {scale}"
    if isinstance(batch, int) and isinstance(pool, int) and batch > 0 and pool % batch:
        yield "queue_size", f"{pool}, expected a multiple of batch_size_per_gpu, {batch}"


_POOL = 180  # upstream's


class RealESRGANBatches:
    """Completes training batches: degrades those that come with kernels, and sharpens the clean images where a loss wants that.

    A batch with kernels (`KERNEL`) goes through `feed_data` of BasicSR's RealESRNetModel where the options have `gt_usm`, else of
    its RealESRGANModel: blur, resize, noise and JPEG, twice, a random crop, and a pool of pairs in which batches are mixed.

    Args:
        opt: the options of the run, see `OPTIONS`; `scale`.
        device: where batches are made.

    Attributes:
        queue_lr, queue_gt, queue_ptr: the pool, upstream's names.
    """

    is_train = True  # upstream's methods read it

    def __init__(self, opt: Mapping[str, Any], device: torch.device) -> None:
        self.whole, self.device = opt, device
        self.opt = {"scale": 1, **{key: opt[key] for key in ("scale", *OPTIONS) if key in opt}}
        self.sharpens = any(opt.get(key) for key in SHARPENED.values())
        self.queue_size = opt.get("queue_size") or _POOL
        self.lq: Tensor
        self.gt: Tensor
        self.gt_usm: Tensor
        self._is_checked = False

    @functools.cached_property
    def usm_sharpener(self) -> USMSharp:
        """Sharpens images, (N, C, H, W)."""
        return USMSharp().to(self.device)

    @functools.cached_property
    def jpeger(self) -> Callable[..., Tensor]:
        """Compresses images, each with its own quality; contiguous, which upstream's filter needs on a CPU."""
        compress = DiffJPEG(differentiable=False).to(self.device)
        return lambda images, quality: compress(images, quality=quality).contiguous()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a batch.

        Args:
            data: {gt, kernel1, kernel2, sinc_kernel}, with images (N, C, H, W) in [0, 1]; or any other batch.

        Returns:
            The batch with `lq` and `gt`, of `gt_size`, and `gt_usm`, the sharpened clean images, where a loss reads them.

        Raises:
            ValueError: options are missing or do not go together; or the batch has several tasks, which the pool would mix.
        """
        batch = dict(data)
        if KERNEL in batch:
            self._check(batch)
            upstream: Any = RealESRNetModel if self.opt.get("gt_usm") is not None else RealESRGANModel
            batch["gt"] = batch["gt"].contiguous()  # as upstream's filter needs it; one that is read without workers is not
            upstream.feed_data(self, batch)
            batch = {"lq": self.lq, "gt": self.gt}  # names of files would be those of other images
            if self.sharpens and upstream is RealESRGANModel:
                batch["gt_usm"] = self.gt_usm
        if self.sharpens and "gt_usm" not in batch and "gt" in batch:
            batch["gt_usm"] = self.usm_sharpener(batch["gt"].to(self.device))
        return batch

    def _check(self, batch: Mapping[str, Any]) -> None:
        if "task" in batch:
            raise ValueError("datasets:train: the pool of Real-ESRGAN's degradation would mix the tasks, expected data of one task")
        if self._is_checked:
            return
        require(Block("Real-ESRGAN's degradation", OPTIONS), {key: self.opt[key] for key in OPTIONS if key in self.opt}, ())
        for key, text in faults(self.whole):
            raise ValueError(f"{key}: {text}")
        self._is_checked = True

    def _dequeue_and_enqueue(self) -> None:
        """Upstream's, in a pool on whatever device: it makes its own on a GPU."""
        kept = getattr(self, "queue_lr", None)
        if kept is None or kept.shape[1:] != self.lq.shape[1:] or len(kept) != self.queue_size:
            self.queue_lr, self.queue_gt = (
                torch.zeros(self.queue_size, *images.shape[1:], device=self.device) for images in (self.lq, self.gt)
            )
            self.queue_ptr = 0
        RealESRGANModel._dequeue_and_enqueue(self)  # pyright: ignore[reportArgumentType]

    def state_dict(self) -> dict[str, Any]:
        """The `pool`, if there is one: what the next batches depend on beside the random generators."""
        if not hasattr(self, "queue_lr"):
            return {}
        held = {"lq": self.queue_lr[: self.queue_ptr], "gt": self.queue_gt[: self.queue_ptr]}
        return {"pool": {key: _packed(images).cpu() for key, images in held.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state. In several processes, or with a smaller `queue_size`, the pool begins anew, and the log says so."""
        if not (pool := state.get("pool")):
            return
        if distributed.world_size() > 1 or len(pool["lq"]) > self.queue_size:
            get_root_logger().warning(
                "The pool of Real-ESRGAN's degradation begins anew: other pairs than in a run without a stop."
            )
            return
        queues = []
        for key in ("lq", "gt"):
            images = _unpacked(pool[key].to(self.device))
            empty = images.new_zeros(self.queue_size - len(images), *images.shape[1:])
            queues.append(torch.cat([images, empty]))
        self.queue_lr, self.queue_gt = queues
        self.queue_ptr = len(pool["lq"])


def _packed(images: Tensor) -> Tensor:
    """Images as bytes where that loses nothing: a quarter of the disk."""
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return levels if torch.equal(_unpacked(levels), images) else images


def _unpacked(images: Tensor) -> Tensor:
    return images / 255 if images.dtype == torch.uint8 else images
