"""The data of several tasks as one dataset: shares, order, names, and what is refused."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from skimage import data as photos

from kd_plugins.data import DegradedPhotoDataset, TaskDataset, is_unlabelled

COMMON = {"type": "DegradedPhotoDataset", "gt_size": 16, "use_rot": True}


@pytest.fixture
def tasks(tmp_path):
    """Three photos for one task, two of the same names for the other."""
    blocks = {}
    for task, names, degradation in (
        ("rain", ("astronaut", "chelsea", "coffee"), {"type": "rain"}),
        ("noise", ("astronaut", "coffee"), {"type": "noise", "sigma": 25}),
    ):
        (tmp_path / task).mkdir()
        for name in names:
            cv2.imwrite(str(tmp_path / task / f"{name}.png"), getattr(photos, name)()[:48, :48])
        blocks[task] = {**COMMON, "photos": str(tmp_path / task), "degradation": degradation}
    return blocks


def make(tasks, phase="train", **keys):
    return build_dataset({"name": "both", "type": "TaskDataset", "phase": phase, "scale": 1, "tasks": tasks, **keys})


def alone(block, phase="train"):
    return DegradedPhotoDataset({**block, "phase": phase, "scale": 1})


def same(item, other):
    return all(np.array_equal(item[key], other[key]) for key in other)


def test_each_task_has_an_equal_share_of_every_epoch_and_a_shorter_one_begins_anew(tasks):
    dataset = make(tasks)
    assert len(dataset) == 6
    found = [dataset[index] for index in range(6)]
    assert [item["task"] for item in found] == ["rain", "noise"] * 3
    assert [Path(item["gt_path"]).stem for item in found[1::2]] == ["astronaut", "coffee", "astronaut"]
    sampler = EnlargedSampler(dataset, 1, 0, ratio=5)
    sampler.set_epoch(1)
    assert Counter(dataset[index]["task"] for index in sampler) == {"rain": 15, "noise": 15}


def test_an_item_is_that_of_its_own_dataset_and_its_task(tasks):
    dataset = make(tasks)
    for index, (task, place) in {0: ("rain", 0), 3: ("noise", 1), 4: ("rain", 2), 5: ("noise", 0)}.items():
        item, own = dataset.seeded_item(index, 7), alone(tasks[task]).seeded_item(place, 7)
        assert item.pop("task") == task and item.keys() == own.keys() and same(item, own)
        torch.manual_seed(3)
        item = dataset[index]
        torch.manual_seed(3)
        assert same(item, alone(tasks[task])[place])


def test_validation_goes_through_the_tasks_one_after_another_with_names_of_their_own(tasks):
    dataset = make(tasks, "val")
    items = [dataset[index] for index in range(len(dataset))]
    assert [item["task"] for item in items] == ["rain"] * 3 + ["noise"] * 2
    names = [f"{name}_{task}.png" for task, names in (("rain", "astronaut chelsea coffee"), ("noise", "astronaut coffee"))
             for name in names.split()]  # fmt: skip
    assert [item["lq_path"] for item in items] == names
    assert torch.equal(items[4]["lq"], alone(tasks["noise"], "val")[1]["lq"])
    with pytest.raises(IndexError):
        dataset[5]
    assert [make({"rain": tasks["rain"]}, "val")[index]["lq_path"] for index in (0, 2)] == ["astronaut.png", "coffee.png"]


def test_a_task_named_as_a_path_does_not_hide_the_names_of_images(tasks):
    dataset = make({"noise/25": tasks["noise"], 50: tasks["noise"]}, "val")
    assert [dataset[index]["lq_path"] for index in (0, 2)] == ["astronaut_noise_25.png", "astronaut_50.png"]
    assert dataset[2]["task"] == "50"


def test_phase_scale_and_home_are_handed_down(tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = {"dataroot_lq": "~/rain", "dataroot_gt": "~/rain", "io_backend": {"type": "disk"}}
    pairs = {"type": "PairedImageDataset", **folders, "gt_size": 16, "use_hflip": True, "use_rot": True}
    down = {**COMMON, "photos": tasks["noise"]["photos"], "degradation": {"type": "downsample", "scale": 2}}
    assert make({"pairs": pairs})[0]["lq"].shape == (3, 16, 16)
    assert make({"half": down}, scale=2)[0]["lq"].shape == (3, 8, 8)
    assert make({"half": down}, "test", scale=2)[0]["lq"].shape == (3, 24, 24)


@pytest.mark.parametrize("tasks", [None, {}, [], {"rain": None}], ids=str)
def test_another_form_is_refused(tasks):
    with pytest.raises(ValueError, match=r"tasks: (missing|.*, expected (a mapping|\{TASK: \{type: DATASET, ...\}, ...\}))"):
        make(tasks)


def test_one_inside_of_another_and_clean_images_for_some_are_refused(tasks):
    inner = {"type": "TaskDataset", "tasks": tasks}
    with pytest.raises(ValueError, match="tasks:inner: a TaskDataset inside of another"):
        make({"inner": inner})
    some = {**tasks, "noise": {**tasks["noise"], "unlabelled": True}}
    with pytest.raises(ValueError, match="some have clean images and some have none"):
        make(some)
    assert len(make(some, "val")) == 5  # one at a time


def test_it_has_a_ground_truth_where_all_tasks_have_one(tasks):
    block = {"type": "TaskDataset", "tasks": tasks}
    assert not is_unlabelled(block) and not is_unlabelled({"type": "TaskDataset", "tasks": [1]})
    tasks["noise"]["unlabelled"] = True
    assert is_unlabelled(block) and isinstance(make({"noise": tasks["noise"]}), TaskDataset)
