"""Images of other channels than RGB: gray from the photos to the panels, sensors' and two views in, and what is refused."""

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from kd_plugins.options import OptionError
from kd_plugins.teachers import build_source
from kd_plugins.train import train_pipeline

RESTORMER = {"type": "Restormer", "dim": 4, "num_blocks": [1] * 4, "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]}
GRAY = {**RESTORMER, "inp_channels": 1, "out_channels": 1}
NETS = """
from torch import nn


class Pair(nn.Conv2d):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Several(nn.Conv2d):
    def forward(self, x):
        return [super().forward(x), x]
"""
LOGITS = {"logits": {"type": "L1Loss", "between": "output", "view": "degraded"}}


class Views(Dataset):
    """Two views, or a sensor's four colours, in six or four channels; the clean image in colour."""

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = torch.rand(self.opt["count"], 32, 32, generator=torch.Generator().manual_seed(index))
        return {"lq": image, "gt": image[:3], "lq_path": f"{index}.png", "gt_path": f"{index}.png"}


@pytest.fixture
def networks(with_validation, tmp_path):
    """Give a run a student and a teacher of the same block."""

    def give(block, **options):
        torch.manual_seed(0)
        torch.save({"params": build_source(block, "teacher").state_dict()}, tmp_path / "teacher.pth")
        with_validation.update(network_g=block, teacher={**block, "checkpoint": str(tmp_path / "teacher.pth")}, **options)
        return with_validation

    return give


@pytest.mark.parametrize("model", ["SLKDModel", "SKDModel", "DCKDModel", "DistillationModel"])
def test_a_gray_run_from_photos_to_panels(model, networks, tokenizer_file, write, tmp_path, monkeypatch):
    options = networks(GRAY, model_type=model)
    for block in options["datasets"].values():
        block["color"] = "y"
    options["features"] = None if model in ("DCKDModel", "DistillationModel") else "auto"
    if model == "DCKDModel":
        options["dckd"] = {"tokenizer": {"weights": str(tokenizer_file)}}
        options["train"]["distill"] = {"consistency": {"type": "L1Loss", "between": "output", "view": "transformed"}}
    if model == "DistillationModel":
        options["train"].update(pixel_opt={"type": "L1Loss"}, distill=LOGITS)
    options["train"]["total_iter"] = 2
    options["val"]["save_img"] = True
    shown = []
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_image", lambda self, tag, image, *_, **__: shown.append(image))
    trained = train_pipeline(str(tmp_path), ["-opt", write(options)])
    assert set(trained.scores["small"]) == {"input", "student", "teacher"}
    assert all(np.isfinite(list(scores.values())).all() for scores in trained.scores["small"].values())
    assert any(image.shape == (120, 4 * 64 + 3 * 2, 3) for image in shown)
    assert all(value > 0 for name, value in trained.updater.losses.items() if name != "l_logits")  # they start equal


@pytest.mark.parametrize("degradation", [{"type": "noise", "sigma": 25}, {"type": "rain"}, {"type": "blur"}])
def test_gray_photos_have_one_channel_the_luma(degradation, photo_folder):
    opt = {"type": "DegradedPhotoDataset", "phase": "val", "photos": str(photo_folder), "degradation": degradation}
    gray, colour = (build_dataset({**opt, "name": "a", "scale": 1, **more})[0] for more in ({"color": "y"}, {}))
    assert gray["gt"].shape == gray["lq"].shape == (1, 48, 64)
    luma = 16 / 255 + (colour["gt"] * torch.tensor([65.481, 128.553, 24.966])[:, None, None]).sum(0) / 255
    assert (gray["gt"][0] - luma).abs().max() < 1 / 255
    if degradation["type"] == "noise":
        assert (gray["lq"] - gray["gt"]).std() * 255 == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize("count", [4, 6])
def test_more_channels_go_in_and_there_is_no_input_image(count, networks, tokenizer_file, write, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "Views", Views)
    options = networks({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1})
    (tmp_path / "views.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, count):\n"
        "        super().__init__(nn.Conv2d(count, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))\n"
    )
    block = {"file": str(tmp_path / "views.py"), "class": "Net", "count": count}
    options = networks(block, model_type="DCKDModel", dckd={"tokenizer": {"weights": str(tokenizer_file)}}, features=None)
    options["init"] = "random"
    options["datasets"] = {
        "train": {**{k: v for k, v in options["datasets"]["train"].items() if k not in ("photos", "degradation")}, "type": "Views"},
        "val": {"name": "small", "type": "Views"},
    }
    for data in options["datasets"].values():
        data["count"] = count
    options["train"]["total_iter"] = 2
    trained = train_pipeline(str(tmp_path), ["-opt", write(options)])
    assert set(trained.scores["small"]) == {"student", "teacher"}


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (
            GRAY,
            r"network_g: Restormer takes images of 1 channels, those of the data have 3; `color: y` in a dataset makes",
        ),
        ("Pair", r"network_g: Pair takes mask beside the image, expected a network of one image; write a class around it"),
        ("Several", r"network_g: Several returns a list of 2; choose one: `output: 0`, or a key"),
    ],
)
def test_a_student_that_does_not_fit_the_data_says_so_before_the_first_step(student, said, options, build, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    arguments = {"in_channels": 3, "out_channels": 3, "kernel_size": 3, "padding": 1}
    block = {"file": str(tmp_path / "nets.py"), "class": student, **arguments} if isinstance(student, str) else student
    options.update(model_type="DistillationModel", network_g=block, init="random", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill=LOGITS)
    with pytest.raises(ValueError, match=said):
        build(options)
    if student == "Several":
        options["network_g"]["output"] = 0
        build(options).optimize_parameters(1)


def test_a_teacher_of_two_inputs_gets_a_sentence(options, build, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    block = {"file": str(tmp_path / "nets.py"), "class": "Pair", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    torch.save(build_source(block, "teacher").state_dict(), tmp_path / "pair.pth")
    options.update(model_type="DistillationModel", init="random", features=None)
    options["teacher"] = {**block, "checkpoint": str(tmp_path / "pair.pth")}
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill=LOGITS)
    with pytest.raises(ValueError, match="teacher: Pair takes mask beside the image, expected a network of one image; write"):
        build(options)


def test_data_of_other_channels_than_were_known_is_refused_in_the_first_step(options, build):
    options.update(model_type="DistillationModel", init="random", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill=LOGITS)
    model = build(options)
    model.feed_data({"lq": torch.rand(1, 1, 32, 32), "gt": torch.rand(1, 3, 32, 32)})
    with pytest.raises(ValueError, match="network_g: Restormer takes images of 3 channels, those of the data have 1"):
        model.optimize_parameters(1)


def test_images_of_two_shapes_are_not_stretched_to_each_other(options, build):
    options.update(model_type="DistillationModel", init="random", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill=LOGITS)
    model = build(options)
    model.feed_data({"lq": torch.rand(1, 3, 32, 32), "gt": torch.rand(1, 1, 32, 32)})
    with pytest.raises(OptionError, match=r"network_g: its images are \(1, 3, 32, 32\), the clean images are \(1, 1, 32, 32\)"):
        model.optimize_parameters(1)
