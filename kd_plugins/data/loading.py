"""The order and the randomness of training data, such that a run can go on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from basicsr.data import build_dataloader
from basicsr.data.prefetch_dataloader import PrefetchDataLoader
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from kd_plugins.group import place
from kd_plugins.interrupt import ignore_signals
from kd_plugins.randomness import kept_randomness, seed_generators, seed_of

_LONGEST_EPOCH = 10**8  # its order is a list in memory


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
    """A sampler that can begin in the middle of an epoch, without a look at what came before.

    Args:
        sampler: BasicSR's EnlargedSampler: its order is a function of the epoch.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.epoch = self.first = 0

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch, and how many of its items (of this process) are left out."""
        self.epoch, self.first = epoch, first
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Item]:
        epoch, first = self.epoch, self.first
        replicas, rank = getattr(self.sampler, "num_replicas", 1), getattr(self.sampler, "rank", 0)
        for count, index in enumerate(self.sampler):
            if count >= first:
                yield Item(index, epoch, count * replicas + rank)

    def __len__(self) -> int:
        return len(self.sampler)


class SeededItems(Dataset):
    """A dataset whose items are random by (seed, epoch, position) alone: not by what was drawn before, nor by the worker.

    The generators of the process stay as they were. A dataset with a method `seeded_item(index, seed)` is asked through it.

    Args:
        dataset: any dataset.
        seed: of the run; None leaves the randomness to the dataset.
    """

    def __init__(self, dataset: Any, seed: int | None) -> None:
        self.dataset, self.seed = dataset, seed
        self._seeded = getattr(dataset, "seeded_item", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> Any:
        if self.seed is None:
            return self.dataset[item.index]
        seed = seed_of(self.seed, item.epoch, item.position)
        if self._seeded is not None:
            return self._seeded(item.index, seed)
        if get_worker_info() is not None:  # nothing else draws in a worker
            seed_generators(seed)
            return self.dataset[item.index]
        with kept_randomness():
            seed_generators(seed)
            return self.dataset[item.index]


def resumable_loader(loader: Any, sampler: Any, opt: Mapping[str, Any]) -> tuple[DataLoader, ResumableSampler, str]:
    """Build BasicSR's training loader anew, over seeded items and a sampler that can begin in the middle of an epoch.

    Args:
        loader: BasicSR's, for its dataset.
        sampler: its sampler.
        opt: the options of the run.

    Returns:
        The loader, the sampler, and why a run that goes on would see other images (empty: it would not).

    Raises:
        ValueError: an epoch has no whole batch, or more items than memory can hold.
    """
    if len(loader) == 0:
        raise ValueError(f"datasets:train: {len(sampler)} images in an epoch, fewer than a batch has ({loader.batch_size})")
    if len(sampler) > _LONGEST_EPOCH:
        raise ValueError(f"datasets:train:dataset_enlarge_ratio: {len(sampler)} in an epoch, expected at most {_LONGEST_EPOCH}")
    seed, warning = opt["manual_seed"], ""
    dataset = loader.dataset
    if isinstance(loader, PrefetchDataLoader) and loader.num_workers == 0 and not hasattr(dataset, "seeded_item"):
        seed = None  # it draws in a thread beside the training: seeding there would disturb what is drawn here
        warning = "prefetch_mode: cpu without workers: a run that goes on will see other crops; num_worker_per_gpu: 1 repairs it."
    resumable = ResumableSampler(sampler)
    block = opt["datasets"]["train"]
    made = build_dataloader(SeededItems(dataset, seed), block, opt["num_gpu"], opt["dist"], resumable, seed=None)
    made.worker_init_fn = _start_worker
    made.generator = torch.Generator()  # it draws a seed for workers in every epoch: not from the run's generator
    return made, resumable, warning


def _start_worker(number: int) -> None:
    ignore_signals()


class Share(Dataset):
    """The items of a validation dataset that are this process's to score: every so many-th, so that all have equally many rounds.

    Attributes:
        opt: the dataset's.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.opt = dataset, dataset.opt
        self.rank, self.size = place()

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.size)

    def __getitem__(self, round_: int) -> Any:
        index = round_ * self.size + self.rank
        return self.dataset[index] if index < len(self.dataset) else None


def shared_loader(loader: Any) -> Any:
    """A validation loader over this process's share of another's dataset; None stands for a round in which it has nothing to do."""
    if isinstance(loader.dataset, Share):
        return loader
    return DataLoader(Share(loader.dataset), batch_size=1, collate_fn=_one_or_none)


def _one_or_none(items: list[Any]) -> Any:
    return None if items[0] is None else default_collate(items)
