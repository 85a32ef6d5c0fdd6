"""Before the first step teacher and student are scored beside their input, and a teacher that restores nothing is named."""

import pytest
import torch

from kd_plugins.archs import Restormer
from kd_plugins.models.sanity_check import sanity_check
from kd_plugins.models.student_init import starts_from_weights

TEACHERS = '''
import torch
from torch import nn


class Plain(nn.Conv2d):
    """Restores nothing and spoils nothing, for values that it takes for an image's."""

    def __init__(self, way):
        super().__init__(3, 3, 1)
        nn.init.dirac_(self.weight)
        nn.init.zeros_(self.bias)
        self.way = way

    def forward(self, x):
        fine = {"255": x.amax() > 2, "mean": x.amin() < 0, "bgr": x[:, 0].mean() < x[:, 2].mean(), "never": False}[self.way]
        return super().forward(x) if fine else super().forward(x) * 0
'''


@pytest.fixture
def look(with_validation, build, log, tmp_path):
    """The log of a model built with such a teacher."""

    def build_with(teacher, **options):
        with_validation.update(model_type="DistillationModel", init="random", features=None, **options)
        with_validation["teacher"] = teacher
        with_validation["train"].update(
            pixel_opt={"type": "L1Loss"}, distill={"logits": {"type": "L1Loss", "between": "output", "view": "degraded"}}
        )
        build(with_validation)
        return log()

    return build_with


@pytest.fixture
def plain(tmp_path):
    """The block of a teacher that is fine with some values alone."""
    (tmp_path / "plain.py").write_text(TEACHERS)
    weights = {"weight": torch.eye(3)[:, :, None, None], "bias": torch.zeros(3)}
    torch.save(weights, tmp_path / "plain.pth")
    return lambda way: {"file": str(tmp_path / "plain.py"), "class": "Plain", "checkpoint": str(tmp_path / "plain.pth"), "way": way}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("255", "dB below their input; with `value_range: 255` in its block they are at "),
        ("mean", "dB below their input; with `mean: 0.5` in its block they are at "),
        ("bgr", "dB below their input; with channels in the order BGR they are at "),
        ("never", "dB below their input; likely another range of values or a mean (`value_range: 255`, `mean: 0.5` in its block)"),
    ],
)
def test_a_teacher_below_its_input_is_named_with_the_likely_cause(look, plain, way, said):
    found = look(plain(way))
    assert "Before the first step, PSNR of 2 crops (48x64) of small: input " in found
    assert "teacher: its images are " in found and said in found


def test_the_word_that_was_proposed_is_enough(look, plain):
    assert "below their input" not in look({**plain("255"), "value_range": 255})


def test_a_student_that_starts_from_nothing_is_not_scored(look, teacher_file):
    assert ", student " not in look({"checkpoint": str(teacher_file)})


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ({"init": "teacher"}, True),
        ({"init": {"from": "teacher"}}, True),
        ({"path": {"pretrain_network_g": "a.pth"}}, True),
        ({"network_g": {"type": "SourcedNetwork", "network": {"checkpoint": "a.pth"}}}, True),
        ({"init": "random"}, False),
        ({}, False),
    ],
)
def test_what_a_student_may_start_from(options, starts):
    assert starts_from_weights({"network_g": {"type": "Restormer"}, "path": {}, **options}) == starts


def test_a_start_that_spoils_the_image_says_by_how_much(with_validation, build, log, tmp_path, teacher_file):
    broken = Restormer(dim=4, num_blocks=[1, 1, 1, 1], num_refinement_blocks=0, heads=[1, 1, 2, 2])
    torch.nn.init.constant_(broken.output.weight, 0.3)
    torch.save({"params": broken.state_dict(), "params_ema": broken.state_dict()}, tmp_path / "broken.pth")
    with_validation["path"]["pretrain_network_g"] = str(tmp_path / "broken.pth")
    build(with_validation)
    assert ", student " in log() and "The student starts " in log() and " dB below its input." in log()


def test_the_training_data_is_looked_at_where_there_is_no_other_and_nothing_where_it_is_unlabelled(options, build, log):
    build(options)
    assert "Before the first step, PSNR of 3 crops (32x32) of photos: input " in log()


def test_the_run_draws_what_it_would_have_drawn(with_validation, options, build):
    build(with_validation)
    state = torch.get_rng_state()
    with_validation["datasets"].pop("val")
    build(with_validation)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_is_looked_at_where_a_run_goes_on(with_validation, build, log, tmp_path):
    sanity_check({**with_validation, "path": {"resume_state": "a.state"}}, None, None, torch.device("cpu"))
    assert "Before the first step" not in log()
