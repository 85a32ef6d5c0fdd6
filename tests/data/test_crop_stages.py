"""Crops and batches that change on the way of a training: how they are told, and that any position goes on as it would have."""

import gc
import math
import weakref

import cv2
import pytest
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from skimage import data as photos
from torch.utils.data import Dataset

from kd_plugins.data.crop_stages import crop_stages
from kd_plugins.data.training_data import TrainingData

SIZES = [{"until": 3, "gt_size": 8, "batch_size_per_gpu": 3}, {"until": 5, "gt_size": 16}, {"gt_size": 24, "batch_size_per_gpu": 1}]
RESTORMER = {"iters": [3, 2, 9], "gt_sizes": [8, 16, 24], "mini_batch_sizes": [3, 2, 1], "gt_size": 24, "batch_size_per_gpu": 4}


class OwnCrops(Dataset):
    """A user's own, that keeps its crop where nobody looks."""

    def __init__(self, opt):
        self.opt, self._side = opt, opt["gt_size"]

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"lq": torch.rand(3, self._side, self._side) + index, "gt": torch.zeros(3, self._side, self._side)}


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    for folder in ("gt", "lq"):
        (tmp_path / folder).mkdir()
        for name in ("astronaut", "coffee", "chelsea"):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), getattr(photos, name)()[:32, :32])
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "io_backend": {"type": "disk"}}
    pairs = {"type": "PairedImageDataset", **roots, "use_hflip": True, "use_rot": True}
    ours = {"type": "DegradedPhotoDataset", "photos": str(tmp_path / "gt"), "degradation": {"type": "noise", "sigma": 25}}
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "OwnCrops", OwnCrops)
    return {
        "pairs": pairs,
        "ours": ours,
        "tasks": {"type": "TaskDataset", "tasks": {"a": pairs, "b": ours}},
        "own": {"type": "OwnCrops"},
    }


def make(block, iteration=0, **loading):
    block = {"name": "x", "phase": "train", "scale": 1, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 3, **block, **loading}
    block.setdefault("batch_size_per_gpu", 2)
    opt = {"manual_seed": 0, "num_gpu": 0, "dist": False, "datasets": {"train": block}}
    return TrainingData(opt, crop_stages(block), iteration=iteration)


def taken(data, count, iteration=0, position=(0, 0)):
    batches = data.batches(iteration, position)
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("kind", ["pairs", "ours", "tasks", "own"])
def test_a_run_goes_on_at_and_around_a_border_as_it_would_have(kind, blocks):
    block = {**blocks[kind], "stages": SIZES}
    straight = taken(make(block), 8)
    assert [tuple(batch["lq"].shape[::3]) for _, batch in straight] == [(3, 8)] * 3 + [(2, 16)] * 2 + [(1, 24)] * 3
    positions = [position for position, _ in straight]
    assert len(set(positions)) == 8 and positions[:2] == [(0, 3), (0, 6)]
    for iteration in (2, 3, 4, 5, 6):
        torch.manual_seed(iteration)
        for mine, theirs in zip(
            taken(make(block, iteration), 8 - iteration, iteration, positions[iteration - 1]), straight[iteration:], strict=True
        ):
            assert mine[0] == theirs[0] and torch.equal(mine[1]["lq"], theirs[1]["lq"])


@pytest.mark.parametrize(
    "loading", [{"num_worker_per_gpu": 2}, {"num_worker_per_gpu": 1, "persistent_workers": True}, {"prefetch_mode": "cpu"}]
)
def test_workers_and_threads_end_with_their_stage_and_read_the_same(loading, blocks):
    import multiprocessing
    import threading

    straight, data = taken(make({**blocks["ours"], "stages": SIZES}), 8), make({**blocks["ours"], "stages": SIZES}, **loading)
    batches, threads = data.batches(0, (0, 0)), threading.active_count()
    for (_, expected), count in zip(straight, range(8), strict=True):
        assert torch.equal(next(batches)[1]["lq"], expected["lq"])
        assert len(multiprocessing.active_children()) <= loading.get("num_worker_per_gpu", 0), f"a stage before {count} left some"
    assert threading.active_count() <= threads + 4
    batches.close()
    again = [taken(data, 1, 5)[0][1]["lq"] for _ in range(2)]  # a run that is timed begins at several places
    assert torch.equal(*again)


def test_what_a_stage_holds_in_memory_is_freed_when_it_ends(blocks):
    data = make({**blocks["ours"], "stages": SIZES})
    held = weakref.ref(data.loader.dataset.dataset.dataset)
    gc.disable()
    try:
        taken(data, 4)
        assert held() is None
    finally:
        gc.enable()


def test_restormers_lists_say_the_same_as_stages(blocks):
    mine, theirs = (
        crop_stages({**blocks["ours"], **RESTORMER}),
        crop_stages({**blocks["ours"], "batch_size_per_gpu": 2, "stages": SIZES}),
    )
    assert mine == theirs and [stage.until for stage in mine] == [3, 5, math.inf]
    assert crop_stages({"gt_size": 8}) == [(0, math.inf, {"gt_size": 8})]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"stages": [{"gt_size": 8}, {"gt_size": 16}]}, "stages:0:until: missing, expected the last iteration of the stage"),
        ({"stages": [{"until": 5}, {"until": 5}, {}]}, "stages:1:until: 5, expected more than 5, the end of the stage before"),
        ({"stages": [{"until": 2.5}, {}]}, "stages:0:until: 2.5, expected a whole number"),
        ({**RESTORMER, "stages": SIZES}, "stages: stands beside iters, which says the same in Restormer's words"),
        ({"iters": [3, 2]}, "iters: [3, 2], stages of a training, expected gt_sizes or mini_batch_sizes beside it"),
        ({"gt_sizes": [8, 16]}, "gt_sizes: [8, 16], stages of a training, expected iters beside it"),
        ({**RESTORMER, "iters": [3, 2]}, "gt_sizes: [8, 16, 24], expected one for each of the 2 iters"),
        ({**RESTORMER, "gt_size": 16}, "gt_sizes: [8, 16, 24], expected at most gt_size, 16"),
        ({**RESTORMER, "batch_size_per_gpu": 2}, "mini_batch_sizes: [3, 2, 1], expected at most batch_size_per_gpu, 2"),
    ],
)
def test_stages_that_do_not_go_together_are_refused(told, said):
    with pytest.raises(ValueError) as error:
        crop_stages(told)
    assert str(error.value).startswith(f"datasets:train:{said}")


def test_what_a_later_stage_would_end_with_is_found_at_the_start(blocks):
    with pytest.raises(ValueError, match=r"expected at least gt_size = 64"):
        make({**blocks["ours"], "stages": [*SIZES[:1], {"gt_size": 64}]})
    with pytest.raises(ValueError, match="9 images in an epoch, fewer than a batch has \\(10\\)"):
        make({**blocks["pairs"], "stages": [*SIZES[:1], {"gt_size": 16, "batch_size_per_gpu": 10}]})
