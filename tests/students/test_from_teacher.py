"""Students of a teacher's own family: which arguments are widths and depths is found, and a share of the cost is met."""

import pytest
import torch
from torch import nn

from kd_plugins.metrics.complexity import count_flops
from kd_plugins.students import inherit
from kd_plugins.students.blueprint import Blueprint
from kd_plugins.students.request import choose, student_of
from kd_plugins.students.scale import Family
from kd_plugins.teachers import build_source

RGB = {"num_in_ch": 3, "num_out_ch": 3}
RESTORMER = {"type": "Restormer", "dim": 16, "num_blocks": [1, 1, 2, 2], "num_refinement_blocks": 2, "heads": [1, 2, 2, 4]}
EDSR = {"type": "EDSR", **RGB, "num_feat": 24, "num_block": 6, "upscale": 2}
SWINIR = {
    "type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "embed_dim": 36, "depths": [2, 2], "num_heads": [3, 3],
    "mlp_ratio": 2, "upsampler": "pixelshuffledirect", "pad_to": 4,
}  # fmt: skip
DRUNET = {"type": "DRUNet", "in_nc": 4, "out_nc": 3, "nc": [8, 16, 16, 32], "nb": 3, "noise_level": 25}


@pytest.mark.parametrize(
    ("teacher", "widths", "depths"),
    [
        (RESTORMER, {"dim"}, {"num_blocks", "num_refinement_blocks"}),
        (EDSR, {"num_feat"}, {"num_block"}),
        (SWINIR, {"embed_dim"}, {"depths"}),
        (DRUNET, {"nc"}, {"nb"}),
        ({"type": "NAFNet", "width": 8, "enc_blk_nums": [1, 2], "dec_blk_nums": [1, 1], "middle_blk_num": 2}, {"width"},
         {"enc_blk_nums", "middle_blk_num"}),
    ],
    ids=lambda value: value.get("type", "") if isinstance(value, dict) else "",
)  # fmt: skip
def test_widths_and_depths_are_found_by_trying(teacher, widths, depths):
    family = Family(teacher)
    assert set(family.widths) == widths and set(family.depths) == depths


@pytest.mark.parametrize("teacher", [RESTORMER, EDSR, SWINIR], ids=lambda teacher: teacher["type"])
@pytest.mark.parametrize("target", ["params", "flops"])
def test_a_share_is_met_within_a_tenth_by_a_student_that_can_start_from_the_teacher(teacher, target):
    before = torch.get_rng_state()
    block, found = student_of(teacher, {target: 0.3})
    assert torch.equal(before, torch.get_rng_state())
    student, net = build_source(block, "network_g").eval(), build_source(teacher, "teacher").eval()
    if target == "params":
        share = sum(p.numel() for p in student.parameters()) / sum(p.numel() for p in net.parameters())
    else:
        image = torch.rand(1, 3, 32, 32)
        share = count_flops(student, image) / count_flops(net, image)
    assert abs(share / 0.3 - 1) <= 0.1 and share == pytest.approx(getattr(found, target))
    assert found.width < 1 and found.depth < 1
    inherit(student, net)


def test_heads_divide_the_width():
    family = Family(SWINIR)
    assert all(value % 3 == 0 for value in family.width_values(fine=True))
    assert choose(family, {"width": 0.5}).changes == {"embed_dim": 18}
    assert choose(family, {"width": 0.4, "depth": 0.5}).changes == {"embed_dim": 15, "depths": [1, 1]}


def test_the_arguments_of_a_bundled_teacher_are_read_from_its_file():
    found = Blueprint({"checkpoint": "restormer_derain"})
    assert found.block({"dim": 8})["type"] == "Restormer" and found.block({"dim": 8})["dim"] == 8
    assert "checkpoint" not in found.block({}) and found.arguments["num_refinement_blocks"] == 1


def test_of_teachers_for_several_tasks_the_first_one_counts():
    teachers = {"tasks": {"rain": {"checkpoint": "restormer_derain"}, "noise": {"program": "no.pt"}}}
    assert Blueprint(teachers).arguments == Blueprint({"checkpoint": "restormer_derain"}).arguments


def test_the_arguments_of_recognised_weights_are_read_from_them(tmp_path):
    torch.save(build_source(DRUNET, "teacher").state_dict(), tmp_path / "drunet.pth")
    found = Blueprint({"checkpoint": str(tmp_path / "drunet.pth")}).block({"nb": 2})
    assert found["type"] == "spandrel.architectures.DRUNet.DRUNet"
    assert found["nc"] == [8, 16, 16, 32] and found["nb"] == 2 and found["noise_level"] == 15
    assert isinstance(build_source(found, "network_g"), nn.Module)


@pytest.mark.parametrize(
    ("teacher", "request_", "said"),
    [
        ({"program": "a.pt"}, {"flops": 0.2}, "the teacher is `program`, whose constructor arguments cannot be read"),
        (None, {"flops": 0.2}, "no `teacher`"),
        (EDSR, {"flop": 0.2}, "from_teacher: {'flop': 0.2}, expected {flops: 0.15}"),
        (EDSR, {"flops": 20}, "from_teacher:flops: 20, expected a share"),
        (EDSR, {"flops": 0.2, "width": 0.5}, "expected one of"),
        (EDSR, {"params": 0.0001}, "no student within 10 % of it; nearest: 0.0"),
        ({"type": "SRResNet", **RGB}, {"flops": 0.2}, "no architecture 'SRResNet'"),
    ],
)
def test_what_cannot_be_made_is_said(teacher, request_, said):
    with pytest.raises((ValueError, KeyError), match=said):
        student_of(teacher, request_)
