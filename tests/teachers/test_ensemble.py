"""Several teachers teach as their weighted mean."""

import pytest
import torch

from kd_plugins.metrics.complexity import count_flops
from kd_plugins.teachers import build_source, build_teacher

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
DNCNN = {"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R"}


@pytest.fixture
def member(tmp_path):
    def make(name, block):
        torch.manual_seed(len(name))
        torch.save(build_source(block, "teacher").state_dict(), tmp_path / f"{name}.pth")
        return {**block, "checkpoint": str(tmp_path / f"{name}.pth")}

    return make


def test_the_output_is_the_weighted_mean_each_member_from_its_own_source(member):
    recognised = {"checkpoint": member("a", DNCNN)["checkpoint"]}
    by_name = {**member("bb", {**DNCNN, "nc": 6}), "pad_to": 4}
    x = torch.rand(2, 3, 9, 8)
    a, b = (build_teacher(block)(x).image for block in (recognised, by_name))
    for weights, mean in (((0.7, 0.3), 0.7 * a + 0.3 * b), ((1, 3), (a + 3 * b) / 4), ((0, 2), b)):
        members = [{**block, "weight": weight} for block, weight in zip((recognised, by_name), weights, strict=True)]
        torch.testing.assert_close(build_teacher({"ensemble": members})(x).image, mean)
    torch.testing.assert_close(build_teacher({"ensemble": [recognised, by_name]})(x).image, (a + b) / 2)


def test_it_is_frozen_and_its_layers_cannot_be_tapped(member):
    teacher = build_teacher({"ensemble": [member("a", DNCNN), member("bb", DNCNN)]})
    assert not teacher.train().net.training and not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(
        ValueError, match="features: an ensemble has an output but no layers .*expected terms `between: output` only"
    ):
        teacher.tap(["members.0.model.0"])


def test_members_that_return_other_sizes_are_one_sentence(member):
    teacher = build_teacher({"ensemble": [member("a", DNCNN), member("b", EDSR)]})
    with pytest.raises(ValueError, match=r"ensemble: its members return \(1, 3, 8, 8\), \(1, 3, 16, 16\), expected images of one"):
        teacher(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((-1, 1), "teacher:ensemble:0:weight: -1, expected a number of at least 0"),
        ((1, "2"), "teacher:ensemble:1:weight: '2'"),
        ((float("nan"), 1), "teacher:ensemble:0:weight: nan"),
        ((0, 0), r"teacher:ensemble: weights \[0, 0\], expected one above 0"),
    ],
)
def test_weights_that_are_none_are_refused(member, weights, said):
    with pytest.raises(ValueError, match=said):
        build_teacher({"ensemble": [{**member("a", DNCNN), "weight": weight} for weight in weights]})


@pytest.mark.parametrize(
    "block", [{"ensemble": {"checkpoint": "a"}}, {"ensemble": ["a"]}, {"ensemble": [{}], "type": "EDSR"}], ids=str
)
def test_another_form_is_refused(block):
    with pytest.raises(ValueError, match=r"expected nothing but `ensemble: \[\{checkpoint: FILE, weight: 0.7\}"):
        build_teacher(block)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"type": "EDRS", "checkpoint": "dncnn.pth"}, FileNotFoundError, "checkpoint: 'dncnn.pth' is no file"),
        (DNCNN, ValueError, "teacher:ensemble:1: .*expected at least `checkpoint: FILE`"),
        ({"checkpoint": "restormer_derain", "type": "Restomer"}, KeyError, "teacher:ensemble:1: type: .*nearest: Restormer"),
    ],
    ids=["file", "no weights", "type"],
)
def test_a_wrong_member_is_named(member, wrong, error, said):
    with pytest.raises(error, match=said):
        build_teacher({"ensemble": [member("a", DNCNN), wrong]})


def test_its_cost_is_that_of_its_members(member):
    teacher = build_source({"ensemble": [member("a", DNCNN), member("bb", DNCNN)]}, "teacher")
    x = torch.rand(1, 3, 16, 16)
    assert count_flops(teacher, x) >= sum(count_flops(net, x) for net in teacher.members) > 0  # it is traced to count them
