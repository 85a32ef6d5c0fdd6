"""The order and the randomness of training data, from the start and from the middle of an epoch."""

import random

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from skimage import data as photos

from kd_plugins.data import loading
from kd_plugins.data.loading import Item, ResumableSampler, SeededItems, draws_beside, resumable_loader

OURS = {"type": "DegradedPhotoDataset", "photos": "builtin", "degradation": {"type": "noise", "sigma": 25}, "use_rot": True}


@pytest.fixture
def pairs(tmp_path):
    """BasicSR's own dataset, which draws from Python's generator."""
    for folder in ("gt", "lq"):
        (tmp_path / folder).mkdir()
        for name in ("astronaut", "coffee", "chelsea"):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), getattr(photos, name)()[:64, :64])
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "io_backend": {"type": "disk"}}
    return {"type": "PairedImageDataset", **roots, "use_hflip": True, "use_rot": True}


def make(block, workers=0, seed=0, **keys):
    block = {"name": "train", "phase": "train", "scale": 1, "gt_size": 16, "batch_size_per_gpu": 2, **block, **keys}
    block["num_worker_per_gpu"] = workers
    opt = {"manual_seed": seed, "num_gpu": 0, "dist": False, "datasets": {"train": block}}
    return resumable_loader(build_dataset(block), {"dataset_enlarge_ratio": 3, **block}, opt)


def batches(block, epoch, first=0, **arguments):
    loader, sampler = make(block, **arguments)
    sampler.set_epoch(epoch, first)
    return [(batch["lq"], batch["gt"]) for batch in loader]


def same(mine, theirs):
    return len(mine) == len(theirs) and all(
        torch.equal(a, b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x, y, strict=True)
    )


def of_tasks(*blocks):
    """A dataset of tasks, the same every time."""
    return {"type": "TaskDataset", "tasks": {str(number): {**block, "gt_size": 16} for number, block in enumerate(blocks)}}


@pytest.mark.parametrize("kind", ["ours", "pairs", "tasks", "tasks, one of pairs"])
def test_an_epoch_goes_on_where_it_stopped_with_and_without_workers(kind, pairs):
    small = {**OURS, "photos": pairs["dataroot_gt"]}
    block = {"ours": OURS, "pairs": pairs, "tasks": of_tasks(small, OURS), "tasks, one of pairs": of_tasks(small, pairs)}[kind]
    whole = batches(block, epoch=1)
    random.seed(5)
    torch.manual_seed(5)
    assert same(batches(block, epoch=1, first=4), whole[2:])
    assert same(batches(block, epoch=1, first=2, workers=2), whole[1:])
    assert batches(block, epoch=1, first=2 * len(whole)) == []
    assert not same(batches(block, epoch=1, seed=1), whole)


def test_an_epoch_without_a_whole_batch_is_refused(pairs):
    with pytest.raises(ValueError, match="datasets:train: 9 images in an epoch, fewer than a batch has \\(10\\)"):
        make(pairs, batch_size_per_gpu=10)


def test_an_epoch_that_no_memory_holds_is_refused(pairs, monkeypatch):
    monkeypatch.setattr(loading, "_LONGEST_EPOCH", 8)
    with pytest.raises(ValueError, match="datasets:train:dataset_enlarge_ratio: 9 in an epoch, expected at most 8"):
        make(pairs)


def test_the_same_photo_is_another_crop_each_time(pairs):
    dataset = SeededItems(build_dataset({"phase": "train", "scale": 1, "gt_size": 16, "name": "x", **pairs}), 0)
    first, later, next_epoch = (dataset[Item(0, *when)]["gt"] for when in ((0, 0), (0, 3), (1, 0)))
    assert not torch.equal(first, later) and not torch.equal(first, next_epoch)


def test_loading_leaves_no_trace_in_the_generators(pairs):
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert batches(pairs, epoch=0) and batches(OURS, epoch=0)
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist()) and torch.equal(before[2], torch.get_rng_state())


def test_items_skipped_are_not_loaded_and_each_process_has_positions_of_its_own():
    samplers = [ResumableSampler(EnlargedSampler(range(5), 2, rank, ratio=2)) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(3, 2)
    items = [list(sampler) for sampler in samplers]
    assert [[item.position for item in mine] for mine in items] == [[4, 6, 8], [5, 7, 9]]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3)).tolist()
    assert [item.index for item in items[1]] == [order[position] % 5 for position in (5, 7, 9)]


def test_a_prefetching_thread_is_as_good_with_ours_and_a_warning_with_others(pairs):
    assert same(batches(OURS, epoch=0, first=2, prefetch_mode="cpu"), batches(OURS, epoch=0)[1:])
    threaded = {"prefetch_mode": "cpu", "num_worker_per_gpu": 0}
    for block in (OURS, of_tasks(OURS, OURS)):
        assert not draws_beside(make(block, prefetch_mode="cpu")[0].dataset.dataset, threaded)
    for block in (pairs, of_tasks(OURS, pairs)):
        assert draws_beside(make(block, prefetch_mode="cpu")[0].dataset.dataset, threaded)
