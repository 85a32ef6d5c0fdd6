"""Training data whose order and randomness depend on seed and position alone, so that a run can resume within an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from basicsr.data import build_dataloader
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import PrefetchGenerator
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from kd_plugins import distributed
from kd_plugins.data.bad_images import ReadableItems
from kd_plugins.data.workers import DEATHS, ignore_signals
from kd_plugins.errors import BadData
from kd_plugins.randomness import kept_randomness, seed_generators, seed_of

_LONGEST_EPOCH = 10**8  # its order is a list in memory
STOPPED = "stopped"
"""The key under which a batch says why it could not be read. A worker's or thread's exception would come too early, reworded."""


class Item(NamedTuple):
    """What a sampler asks a dataset for.

    Attributes:
        index: of the dataset.
        epoch: counted from 0.
        position: in the epoch, over all processes.
    """

    index: int
    epoch: int
    position: int


class ResumableSampler(Sampler):
    """A sampler that can start in the middle of an epoch without reading what came before.

    Args:
        sampler: BasicSR's EnlargedSampler: its order is a function of the epoch.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.epoch = self.first = 0
        self.last: float = math.inf

    def set_epoch(self, epoch: int, first: int = 0, last: float = math.inf) -> None:
        """Choose the epoch, how many of this process's items in it to skip, and after how many to end."""
        self.epoch, self.first, self.last = epoch, first, last
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Item]:
        epoch, first, last = self.epoch, self.first, self.last
        replicas, rank = getattr(self.sampler, "num_replicas", 1), getattr(self.sampler, "rank", 0)
        for count, index in enumerate(self.sampler):
            if first <= count < last:
                yield Item(index, epoch, count * replicas + rank)

    def __len__(self) -> int:
        return len(self.sampler)


class SeededItems(Dataset):
    """A dataset whose random items depend on (seed, epoch, position) alone, not on earlier draws or on the worker.

    The generators of the process stay as they were. A dataset with a method `seeded_item(index, seed)` is asked through it.

    Args:
        dataset: any dataset.
        seed: of the run; None leaves the randomness to the dataset.
        crops: how many random items are made of each one of the dataset: these, and no others, in every run, whatever its seed;
            None for no end of them.
    """

    def __init__(self, dataset: Any, seed: int | None, crops: int | None = None) -> None:
        self.dataset, self.seed, self.crops = dataset, seed, crops
        self._seeded = getattr(dataset, "seeded_item", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> Any:
        try:
            return self._read(item)
        except BadData as error:
            return {STOPPED: str(error)}

    def _read(self, item: Item) -> Any:
        if self.seed is None:
            return self.dataset[item.index]
        seed = seed_of(self.seed, item.epoch, item.position)
        if self.crops:
            seed = seed_of("crop", item.index, seed % self.crops)
        if self._seeded is not None:
            return self._seeded(item.index, seed)
        if get_worker_info() is not None:  # nothing else draws in a worker
            seed_generators(seed)
            return self.dataset[item.index]
        with kept_randomness():
            seed_generators(seed)
            return self.dataset[item.index]


def resumable_loader(dataset: Any, block: Mapping[str, Any], opt: Mapping[str, Any]) -> tuple[TrainingBatches, ResumableSampler]:
    """Build a training loader as BasicSR does, with seeded items and a sampler that can start in the middle of an epoch.

    Args:
        dataset: what is read.
        block: its options.
        opt: those of the run.

    Returns:
        The loader and its sampler.

    Raises:
        ValueError: an epoch has no whole batch, or more items than memory can hold.
    """
    dataset, prefetches = ReadableItems(dataset), block.get("prefetch_mode") == "cpu"
    sampler = EnlargedSampler(dataset, distributed.world_size(), distributed.rank(), block.get("dataset_enlarge_ratio", 1))
    if len(sampler) > _LONGEST_EPOCH:
        raise ValueError(f"datasets:train:dataset_enlarge_ratio: {len(sampler)} in an epoch, expected at most {_LONGEST_EPOCH}")
    seed = None if draws_beside(dataset, block) else opt["manual_seed"]
    resumable = ResumableSampler(sampler)
    plain = {**block, "prefetch_mode": None}
    items = SeededItems(dataset, seed, block.get("crops_per_image"))
    if seed is None and items.crops:
        raise ValueError(
            "datasets:train:crops_per_image: needs a worker beside `prefetch_mode: cpu`, expected num_worker_per_gpu: 1"
        )
    made = build_dataloader(items, plain, opt["num_gpu"], opt["dist"], resumable, seed=None)
    if len(made) == 0:
        raise ValueError(f"datasets:train: {len(sampler)} images in an epoch, fewer than a batch has ({made.batch_size})")
    made.worker_init_fn = _start_worker
    made.collate_fn = _collate
    made.generator = torch.Generator()  # it draws a seed for workers in every epoch: not from the run's generator
    return TrainingBatches(made, block.get("num_prefetch_queue", 1) if prefetches else 0), resumable


def draws_beside(dataset: Any, block: Mapping[str, Any]) -> bool:
    """Whether a dataset draws in a thread beside the training: seeding there would disturb what is drawn in it."""
    return block.get("prefetch_mode") == "cpu" and not block.get("num_worker_per_gpu") and not hasattr(dataset, "seeded_item")


def _collate(items: list[Any]) -> Any:
    """A batch, or why there is none."""
    for item in items:
        if isinstance(item, Mapping) and STOPPED in item:
            return item
    try:
        return default_collate(items)
    except (RuntimeError, TypeError, KeyError) as error:
        shapes = dict.fromkeys(tuple(value.shape) for item in items for value in item.values() if isinstance(value, torch.Tensor))
        return {STOPPED: f"datasets:train: no batch can be made of images of {', '.join(map(str, shapes))}: {error}"}


class TrainingBatches:
    """A training loader whose last batch says what went wrong, if anything did (`STOPPED`).

    Args:
        loader: any loader.
        ahead: how many batches a thread beside the training asks for at most; 0 for no thread. BasicSR's own `PrefetchDataLoader`
            waits without end where that thread fails.
    """

    def __init__(self, loader: DataLoader, ahead: int = 0) -> None:
        self.loader, self.ahead, self.batch_size = loader, ahead, loader.batch_size
        self.dataset: Any = loader.dataset
        self._batches: Any = None

    def __len__(self) -> int:
        return len(self.loader)

    def close(self) -> None:
        """End the workers: they ignore signals, and a process waits for them at its end."""
        if (shut_down := getattr(self._batches, "_shutdown_workers", None)) is not None:
            shut_down()
        self._batches = self.loader._iterator = None  # the loader keeps that of persistent workers, and would go on with it

    def __iter__(self) -> Iterator[Any]:
        batches = self._batches = iter(self.loader)
        DEATHS.watch()
        return _told(PrefetchGenerator(_told(batches), self.ahead) if self.ahead else batches, DEATHS.waiting)


def _told(batches: Iterator[Any], waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[Any]:
    while True:
        try:
            with waiting():
                batch = next(batches)
        except StopIteration:
            return
        except (EOFError, MemoryError, OSError, RuntimeError) as error:  # a worker died, or could not hand on its images
            text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            yield {STOPPED: f"datasets:train: {text}; with fewer `num_worker_per_gpu` less memory is needed"}
            return
        yield batch


def _start_worker(number: int) -> None:
    ignore_signals()


class Share(Dataset):
    """This process's share of a validation dataset: every n-th item of n processes, with equally many rounds for each.

    Attributes:
        opt: the dataset's.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.opt = dataset, dataset.opt
        self.rank, self.size = distributed.rank(), distributed.world_size()

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.size)

    def __getitem__(self, round_: int) -> Any:
        index = round_ * self.size + self.rank
        return self.dataset[index] if index < len(self.dataset) else None


def readable_loader(loader: Any) -> DataLoader:
    """A validation loader that reports images that cannot be read, or skips them (`ReadableItems`).

    Raises:
        ValueError: there is nothing to read.
    """
    dataset = ReadableItems(loader.dataset)
    if len(dataset) == 0:
        raise ValueError(f"dataset {dataset.opt.get('name')!r} holds no image")
    return _Present(dataset, batch_size=1, collate_fn=_one_or_none, pin_memory=loader.pin_memory)


class _Present(DataLoader):
    def __iter__(self) -> Any:
        return (batch for batch in super().__iter__() if batch is not None)


def shared_loader(loader: Any) -> Any:
    """A validation loader over this process's share of a dataset; it yields None in a round that has no item for the process."""
    if isinstance(loader.dataset, Share):
        return loader
    return DataLoader(Share(loader.dataset), batch_size=1, collate_fn=_one_or_none)


def _one_or_none(items: list[Any]) -> Any:
    return None if items[0] is None else default_collate(items)
