"""The training data of a run, whose crops and batches may change on the way."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from basicsr.data import build_dataset
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.utils import get_root_logger

from kd_plugins.data.crop_stages import CropStage, stage_at
from kd_plugins.data.loading import STOPPED, Item, draws_beside, resumable_loader
from kd_plugins.errors import BadData
from kd_plugins.options import OptionError
from kd_plugins.randomness import kept_randomness

Position = tuple[int, int]
"""An epoch, and how many of its samples this process has used up."""


class TrainingData:
    """Endless batches, from any position on.

    A stage goes on where the one before ended: an epoch is a list of samples, whatever the size of a batch and of a crop. So the
    position tells all, at a border as well. A stage's dataset is built when it begins, with no worker running.

    Args:
        opt: the options of the run.
        stages: see `crop_stages`.
        dataset: of the stage that the run begins in; it is built where there is none.
        iteration: how many iterations are over.

    Attributes:
        images: of the dataset.

    Raises:
        ValueError: see `resumable_loader`; or a stage whose data cannot be had.
    """

    def __init__(self, opt: Mapping[str, Any], stages: Sequence[CropStage], dataset: Any = None, iteration: int = 0) -> None:
        self.opt, self.stages, self._stage = opt, stages, stage_at(stages, iteration)
        self._try_stages()
        self._build(dataset)

    def _try_stages(self) -> None:
        """Find out now what a stage would end with after days: a crop larger than an image, a batch larger than an epoch."""
        later = self.stages[self._stage + 1 :]
        if not later:
            return
        with kept_randomness():
            dataset = build_dataset(max(later, key=lambda stage: stage.crop).block)
            for stage in later:
                resumable_loader(dataset, stage.block, self.opt)

    def _build(self, dataset: Any = None) -> None:
        block = self.stages[self._stage].block
        self.loader: Any = None  # with what the stage before held in memory
        self.sampler: Any = None
        gc.collect()  # a dataset may stand in a circle
        self.loader, self.sampler = resumable_loader(build_dataset(block) if dataset is None else dataset, block, self.opt)
        self.images = len(self.loader.dataset)

    def warning(self) -> str:
        """Why a run that goes on would see other images; empty if it would not."""
        if draws_beside(self.loader.dataset.dataset, self.stages[self._stage].block):
            return "prefetch_mode: cpu without workers: a run that goes on will see other crops; num_worker_per_gpu: 1 repairs it."
        return ""

    def remaining(self) -> Sequence[CropStage]:
        """The stage that the run is in, and those behind it."""
        return self.stages[self._stage :]

    def sample(self) -> Any:
        """The first item of the stage's data; None where it cannot be read."""
        with kept_randomness():
            item = self.loader.dataset[Item(0, 0, 0)]
        return None if isinstance(item, Mapping) and STOPPED in item else item

    def begins_at(self, iteration: int) -> bool:
        """Whether a later stage begins when so many iterations are over."""
        return iteration > 0 and any(stage.first == iteration for stage in self.stages)

    def batches(self, iteration: int, position: Position) -> Generator[tuple[Position, Any], None, None]:
        """Endless batches.

        Args:
            iteration: how many are over.
            position: where the run stopped.

        Yields:
            A batch, and the position after it. Upstream counts an epoch's incomplete last batch, which the loader drops.

        Raises:
            OptionError: a `prefetch_mode` that is none.
            BadData: the data of a later stage is no longer there.
        """
        while True:
            if (stage := stage_at(self.stages, iteration)) != self._stage:
                self._stage = stage
                try:
                    with kept_randomness():  # a run that begins here has built it before its generators were restored
                        self._build()
                except (OSError, ValueError) as error:
                    raise BadData(f"datasets:train: {error}") from error
            if len(self.stages) > 1:
                crop, batch = self.stages[stage].crop, self.stages[stage].block["batch_size_per_gpu"]
                sizes = f"{f'crops of {crop}, ' if crop else ''}batches of {batch}"
                get_root_logger().info(f"Stage {stage + 1} of {len(self.stages)}, from iteration {iteration + 1} on: {sizes}.")
            try:
                for after, data in self._of_stage(self.stages[stage].until - iteration, position):
                    position, iteration = after, iteration + 1
                    yield position, data
            finally:
                self.loader.close()

    def _of_stage(self, count: float, position: Position) -> Iterator[tuple[Position, Any]]:
        """So many batches, and not one more is read."""
        (epoch, samples), size, prefetcher = position, self.loader.batch_size or 1, None
        while count > 0:
            self.sampler.set_epoch(epoch, samples, samples + count * size)
            if prefetcher is None:
                prefetcher = _build_prefetcher(self.loader, self.opt)  # it asks for batches at once, so the sampler comes first
            else:
                prefetcher.reset()
            while (data := prefetcher.next()) is not None:
                count, samples = count - 1, samples + size
                yield (epoch, samples), data
            if count > 0:
                epoch, samples = epoch + 1, 0


def _build_prefetcher(loader: Any, opt: Mapping[str, Any]) -> Any:
    mode = opt["datasets"]["train"].get("prefetch_mode")
    if mode not in (None, "cpu", "cuda"):
        raise OptionError(f"datasets:train:prefetch_mode: {mode!r}, expected cpu, cuda or nothing")
    if mode == "cuda" and opt["num_gpu"] == 0:
        get_root_logger().warning("prefetch_mode: cuda needs a GPU; prefetching on the CPU.")
    return CUDAPrefetcher(loader, opt) if mode == "cuda" and opt["num_gpu"] else CPUPrefetcher(loader)
