"""The part that scores, alone: images that a test makes up, in place of networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_plugins.errors import BadData
from kd_plugins.metrics.score import score
from kd_plugins.options import OptionError
from kd_plugins.training.validator import Validator

PSNR = {"type": "calculate_psnr", "crop_border": 0}


class Images(list):
    """A loader of numbered images of one dataset."""

    dataset = SimpleNamespace(opt={"name": "mine"})


class Writer:
    def __init__(self):
        self.scalars, self.images = {}, []

    def add_scalar(self, tag, value, iteration):
        self.scalars[tag] = value

    def add_image(self, tag, panel, iteration, dataformats):
        self.images.append((tag, panel.shape))


class Scene:
    """A validator whose student is wrong by `error`, its teacher by a hundredth."""

    def __init__(self, tmp_path, clean=True, **val_opt):
        self.error, self.clean, self.asked = 0.1, clean, []
        path = lambda dataset, name, iteration: str(tmp_path / f"{dataset}_{name}_{iteration}.png")  # noqa: E731
        self.validator = Validator({"metrics": {"psnr": PSNR}, **val_opt}, self.restore, path)
        self.loader = Images({"lq_path": [f"folder/{name}.png"]} for name in "ab")

    def restore(self, data, with_baselines):
        self.asked.append(with_baselines)
        clean = torch.full((1, 3, 8, 8), 0.5)
        images = {"student": clean + self.error, **({"clean": clean} if self.clean else {})}
        baselines = {"teacher": clean + 0.01, "input": torch.full((1, 3, 4, 4), 0.3)}
        return {**images, **baselines} if with_baselines else images


def test_a_panel_is_captioned_with_the_psnr_of_each_image(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        "kd_plugins.training.validator.draw_panel", lambda images, captions: (said.append(captions), images["student"])[1]
    )
    Scene(tmp_path, panels=1).validator.run(Scene(tmp_path).loader, 10, Writer(), save_img=False)
    assert said == [{"student": "student 20.17 dB", "clean": "clean", "teacher": "teacher 42.11 dB", "input": "input 13.81 dB"}]


def test_baselines_are_scored_once_and_the_best_is_kept(tmp_path):
    scene, writer = Scene(tmp_path, panels=1), Writer()
    for iteration, error in ((10, 0.1), (20, 0.02), (30, 0.2)):
        scene.error = error
        scene.validator.run(scene.loader, iteration, writer, save_img=iteration == 10)
    assert scene.asked == [True, True, True, False, True, False]  # all of the first time, then those that are shown
    scores = scene.validator.scores["mine"]
    assert sorted(scores) == ["input", "student", "teacher"] and scores["teacher"]["psnr"] > scores["student"]["psnr"]
    best = scene.validator.best["mine"]["psnr"]
    assert best["iter"] == 20 and best["val"] > scores["student"]["psnr"]
    assert writer.scalars["metrics/mine/psnr_gap"] == scores["student"]["psnr"] - scores["teacher"]["psnr"]
    assert writer.images[0] == ("mine/a", (22 + 8 + 2 + 8, 4 * 8 + 3 * 2, 3)) and len(writer.images) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine_a_10.png", "mine_b_10.png"]

    state = scene.validator.state_dict()
    again = Scene(tmp_path).validator
    again.load_state_dict(state)
    assert again.best == scene.validator.best
    turned = Scene(tmp_path, metrics={"psnr": {**PSNR, "better": "lower"}}).validator  # reads it the other way round
    turned.load_state_dict(state)
    assert turned.best == {"mine": {}}


def test_a_metric_without_its_clean_image_and_a_dataset_without_images_are_refused(tmp_path):
    scene = Scene(tmp_path, clean=False)
    with pytest.raises(OptionError, match="val:metrics:psnr: calculate_psnr compares with a clean image"):
        scene.validator.run(scene.loader, 1, None, save_img=False)
    with pytest.raises(BadData, match="dataset 'mine': none of its images can be used"):
        scene.validator.run(Images([None]), 1, None, save_img=False)


def test_a_metric_without_a_value_is_nan_and_one_that_takes_no_such_image_names_it(tmp_path):
    niqe = {"type": "calculate_niqe", "crop_border": 0, "better": "lower"}
    assert math.isnan(score({"img": np.full((200, 200, 3), 128, np.uint8)}, niqe))
    scene = Scene(tmp_path, metrics={"niqe": niqe})
    with pytest.raises(BadData, match="dataset 'mine': image 'a': val:metrics: calculate_niqe of 8x8x3 and 8x8x3 pixels: "):
        scene.validator.run(scene.loader, 1, None, save_img=False)
