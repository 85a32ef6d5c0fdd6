"""What a run would come to after its first steps, found before its folder is made."""

from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY
from short_runs import assert_same_bits, weights
from torch import nn

from kd_plugins import train as training
from kd_plugins.cli import main


class Large(nn.Module):
    """A loss that takes no small images, and counts what it is shown."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.register_buffer("shown", torch.zeros(()))

    def forward(self, student, teacher):
        if min(student.shape[-2:]) < 24:
            raise ValueError(f"images of {student.shape[-1]}, expected 24 or more")
        self.shown += 1
        assert self.shown == 1, "the trial has left something"
        return (student - teacher).abs().mean()


@pytest.fixture
def refused(options, write, tmp_path, monkeypatch, capsys):
    """Train; what the one sentence was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, "Large", Large)
    options["num_threads"] = 1

    def run(code=2):
        assert main(["train", "-opt", write(options)]) == code
        assert Path("experiments").exists() == (code == 0)
        return capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.mark.usefixtures("one_thread")
def test_a_crop_of_a_later_stage_that_a_loss_does_not_take(options, refused):
    options.update(model_type="DistillationModel", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"own": {"type": "Large", "between": "output"}}, total_iter=1)
    options["datasets"]["train"]["stages"] = [{"until": 3}, {"until": 6, "gt_size": 24}, {"gt_size": 16}]
    said = "datasets:train: the stage with crops of 16: train:distill:own: "
    assert refused().endswith(f"{said}images of 16, expected 24 or more")
    options["train"]["distill"]["own"].update(every=2, fade={"from": 0, "to": 1, "start": 5, "end": 6})
    assert refused().endswith(f"{said}images of 16, expected 24 or more")
    options["datasets"]["train"]["stages"] = [{"until": 3}, {"gt_size": 24}]
    refused(code=0)


@pytest.mark.parametrize("later", [{"every": 2}, {"fade": {"from": 0, "to": 1, "start": 2, "end": 3}}], ids=str)
@pytest.mark.usefixtures("one_thread")
def test_a_term_that_does_not_count_at_first_and_does_not_fit(options, refused, later):
    term = {"type": "Large", "between": "output", **later}
    options.update(model_type="DistillationModel", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"own": term}, total_iter=1)
    options["datasets"]["train"]["gt_size"] = 16
    assert refused().endswith("a later step: train:distill:own: images of 16, expected 24 or more")


@pytest.mark.usefixtures("one_thread")
def test_a_later_batch_is_tried_whole(options, refused):
    contrast = {"type": "ContrastiveImageLoss", "between": "output", "count": 3}
    options.update(model_type="DistillationModel", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"contrast": contrast}, total_iter=1)
    options["datasets"]["train"].update(batch_size_per_gpu=4, stages=[{"until": 3}, {"gt_size": 24}])
    refused(code=0)


@pytest.mark.usefixtures("one_thread")
def test_a_trial_leaves_nothing_in_the_pool_of_real_esrgan(real_esrgan, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real_esrgan["train"].update(total_iter=2, distill={"logits": {"type": "L1Loss", "every": 2}})
    assert main(["train", "-opt", write({**real_esrgan, "name": "tried"})]) == 0
    monkeypatch.setattr(training, "try_later_steps", lambda *_: None)
    assert main(["train", "-opt", write({**real_esrgan, "name": "untried"})]) == 0
    assert_same_bits(weights("tried"), weights("untried"))


@pytest.mark.usefixtures("one_thread")
def test_an_image_that_is_too_small_for_a_metric(with_validation, refused, monkeypatch):
    def gray(img, img2):
        assert img.ndim == 2, "it takes gray images"

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "calculate_gray", gray)
    metrics = with_validation["val"]["metrics"]
    metrics.update(niqe={"type": "calculate_niqe", "crop_border": 0}, gray={"type": "calculate_gray"})
    assert "val:metrics:niqe: 'astronaut.png' of dataset 'small' is 48 pixels wide or high, too small: " in refused()
