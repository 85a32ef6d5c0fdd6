"""Stages of crops and batches: against each other, the run and the images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from option_texts import GOOD

STAGES = "datasets:train:stages=[{until: 200, gt_size: 48}, {gt_size: 64, batch_size_per_gpu: 2}]"


@pytest.mark.parametrize(
    "entries",
    [
        [STAGES],
        [STAGES, "datasets:train:gt_size=~"],
        ["datasets:train:iters=[200, 200]", "datasets:train:gt_sizes=[48, 64]", "datasets:train:mini_batch_sizes=[4, 2]"],
        ["datasets:train:iters=[200, 200]", "datasets:train:mini_batch_sizes=[4, 2]"],
    ],
)
def test_stages_that_a_run_can_go_through_are_accepted_in_both_words(check, entries):
    assert not any("train:" in line for line in check(GOOD, *entries, code=0))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("stages=[{until: 200, gt_size: 64}, {until: 100}, {}]", "train:stages:1:until: 100, expected more than 200, the end of"),
        ("stages=[{until: 200}, {until: 300}]", "train:stages:1:until: 300, expected total_iter, 400, or no such key"),
        (
            "stages=[{until: 200, gt_siz: 64}, {gt_size: 48}]",
            "train:stages:0:gt_siz: 64, a stage has no such key; nearest: gt_size",
        ),
        ("stages=[{until: 0}, {gt_size: 48}]", "train:stages:0:until: 0, expected a number of at least 1"),
        ("stages=[]", "train:stages: [], expected a list of mappings"),
        ("iters=[200, 200]", "train:iters: [200, 200], stages of a training, expected gt_sizes or mini_batch_sizes beside it"),
    ],
)
def test_stages_that_do_not_hold_together_are_refused(check, entry, said):
    assert [line for line in check(GOOD, f"datasets:train:{entry}") if said in line]


def test_lists_of_restormer_are_of_whole_iterations(check):
    (line,) = check(GOOD, "datasets:train:iters=[1.5, 398.5]", "datasets:train:gt_sizes=[32, 48]")
    assert "train:iters: [1.5, 398.5], expected whole numbers" in line


def test_each_stage_has_what_training_needs_of_it(check):
    (line,) = check(GOOD, "datasets:train:gt_size=~", "datasets:train:stages=[{until: 9, gt_size: 48}, {batch_size_per_gpu: 1}]")
    assert "datasets:train:gt_size: missing, training on DegradedPhotoDataset needs it" in line


def test_a_stage_that_the_run_never_comes_to_is_a_warning(check):
    (line,) = [line for line in check(GOOD, STAGES, "train:total_iter=100", code=0) if "stages" in line]
    assert "datasets:train:stages: stage 2 begins after iteration 200, and the run ends at 100" in line


def test_stages_of_other_data_than_training_data_are_a_warning(check):
    said = check(GOOD, "datasets:val:stages=[{until: 9, gt_size: 48}, {gt_size: 64}]", code=0)
    assert any("datasets:val:stages: only datasets:train has stages; it has no effect" in line for line in said)


def test_the_crops_of_later_stages_are_held_to_the_heads_of_the_images(check):
    Path("small").mkdir()
    for name, height in (("a", 40), ("b", 60), ("c", 80)):
        cv2.imwrite(f"small/{name}.png", np.zeros((height, 90, 3), np.uint8))
    photos = "datasets:train:photos=small"
    (line,) = check(GOOD, photos, STAGES)
    assert "train:stages:1:gt_size: 64, larger than 'a.png' and 1 more images of photos, whose shorter side is 40" in line
    (line,) = [x for x in check(GOOD, photos, STAGES, "datasets:train:on_bad_image=skip", code=0) if "stages" in x]
    assert "smaller images are left out of the stage" in line
    Path("list.txt").write_text("c.png\n")
    assert not [x for x in check(GOOD, photos, STAGES, "datasets:train:meta_info_file=list.txt", code=0) if "stages" in x]
    pairs = "{name: a, type: PairedImageDataset, dataroot_gt: small, dataroot_lq: small, io_backend: {type: disk}, use_hflip: ~, "
    pairs += "use_rot: ~, batch_size_per_gpu: 1, num_worker_per_gpu: 0, gt_sizes: [32, 48], iters: [200, 200], gt_size: 48}"
    (line,) = check(GOOD, f"datasets:train={pairs}")
    assert "datasets:train:gt_sizes: 48, larger than 'a.png' of dataroot_gt, whose shorter side is 40" in line


def test_data_without_crops_has_stages_of_batches_alone(check):
    single = "{name: a, type: SingleImageDataset, dataroot_lq: images, io_backend: {type: disk}, batch_size_per_gpu: 1, "
    single += "num_worker_per_gpu: 0, stages: [{until: 9}, {gt_size: 48}]}"
    assert any("SingleImageDataset has no crops" in line for line in check(GOOD, f"datasets:train={single}"))
