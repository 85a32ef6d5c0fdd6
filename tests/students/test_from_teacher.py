"""Students of a teacher's own family: which arguments are widths and depths is found, and a share of the cost is met."""

import pytest
import torch
import yaml
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.metrics.complexity import count_flops
from kd_plugins.students import inherit
from kd_plugins.students.blueprint import Blueprint
from kd_plugins.students.family import Family
from kd_plugins.students.from_teacher import candidates, read_request, student_of
from kd_plugins.students.stopwatch import Stopwatch
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
    block, found, said = student_of(teacher, {target: 0.3})
    assert said.endswith(f"{found.params:.3f} of its params; asked for: {{{target}: 0.3}}")
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


def chosen(family, request):
    return next(candidates(family, read_request(request), Stopwatch(family)))


def test_heads_divide_the_width():
    family = Family(SWINIR)
    assert all(value % 3 == 0 for value in family.width_values(fine=True))
    assert chosen(family, {"width": 0.5}).changes == {"embed_dim": 18}
    assert chosen(family, {"width": 0.4, "depth": 0.5}).changes == {"embed_dim": 15, "depths": [1, 1]}


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
        (EDSR, {}, "from_teacher: {}, expected {flops: 0.15}"),
        (EDSR, {"flop": 0.2}, "from_teacher:flop: no such key; nearest: flops"),
        (EDSR, {"flops": 20}, "from_teacher:flops: 20, expected a number above 0 and of at most 1"),
        (EDSR, {"latency": 0}, "from_teacher:latency: 0, expected a number above 0"),
        (EDSR, {"flops": 0.2, "width": 0.5}, "from_teacher: flops, width, expected one of"),
        (EDSR, {"flops": 0.2, "ms": 5}, "from_teacher: flops, ms, expected one of"),
        (EDSR, {"tolerance": 0.2}, "from_teacher: tolerance, expected one of"),
        (EDSR, {"params": 0.0001}, "no student within 10 % of it; nearest: 0.0"),
        (EDSR, {"params": 0.2, "tolerance": 0}, "from_teacher:tolerance: 0, expected a number above 0"),
        (EDSR, {"ms": 5, "tolerance": 0.1}, "from_teacher:tolerance: 0.1, expected flops or params beside it"),
        (EDSR, {"flops": 0.2, "size": 64}, "from_teacher:size: 64, expected latency or ms beside it"),
        (EDSR, {"ms": 5, "size": "64 x 64"}, r"from_teacher:size: '64 x 64', expected pixels: 256, or 512x768 \(height x width"),
        (EDSR, {"ms": 60000, "size": [64]}, "from_teacher:ms: 60000, expected less than the teacher itself takes: .* at 64x64 on"),
        (EDSR, {"ms": 5, "threads": 0}, "from_teacher:threads: 0, expected a whole number of at least 1"),
        (EDSR, {"ms": 5, "device": "gpu"}, "from_teacher:device: 'gpu', expected cpu"),
        ({"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 3}, {"flops": 0.2},
         r"no argument of Conv2d was found to be a width or a depth \(in_channels: 2 tried: neither"),
        ({"type": "SRResNet", **RGB}, {"flops": 0.2}, "no architecture 'SRResNet'"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_said(teacher, request_, said):
    with pytest.raises((ValueError, KeyError), match=said):
        student_of(teacher, request_)


def test_a_tolerance_takes_the_nearest_one():
    teacher = {**EDSR, "num_feat": 10, "num_block": 1}
    with pytest.raises(ValueError, match=r"no student within 10 % of it; nearest: 0.*; {params: 0.32, tolerance: 0.15} takes the"):
        student_of(teacher, {"params": 0.32})
    block, found, _ = student_of(teacher, {"params": 0.32, "tolerance": 0.15})
    assert block["num_feat"] == 5 and 0.1 < abs(found.params / 0.32 - 1) <= 0.15


def test_arguments_that_are_classes_are_left_out_where_they_are_the_usual_ones(tmp_path):
    craft = {"depths": [2], "embed_dim": 12, "num_heads": [6], "split_size_0": 2, "split_size_1": 4, "window_size": 4}
    torch.save(build_source({"type": "CRAFT", **craft}, "teacher").state_dict(), tmp_path / "craft.pth")
    found = Blueprint({"checkpoint": str(tmp_path / "craft.pth")}).block({})
    assert "norm_layer" not in found and found["depths"] == [2]
    assert yaml.safe_load(yaml.safe_dump(found)) == found


def test_a_width_that_divides_by_heads_is_found_by_its_divisors():
    family = Family({"type": "DCTLSA", "nf": 25, "num_modules": 6, "upscale": 2, "num_head": 5})
    assert family.widths == {"nf": 25} and family.width_values() == [5, 10, 15, 20, 25]


def test_the_repetitions_of_a_recurrent_network_are_its_depth(tmp_path):
    (tmp_path / "recurrent.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "class Recurrent(nn.Module):\n"
        "    def __init__(self, recurrent_iter=6):\n"
        "        super().__init__()\n"
        "        self.iteration = recurrent_iter\n"
        "        self.conv = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))\n\n"
        "    def forward(self, x):\n"
        "        images = [x]\n"
        "        for _ in range(self.iteration):\n"
        "            images.append(self.conv(torch.cat([x, images[-1]], 1)))\n"
        "        return images[-1], images\n"
    )
    teacher = {"file": str(tmp_path / "recurrent.py"), "class": "Recurrent", "output": 0}
    block, found, _ = student_of(teacher, {"flops": 0.5})
    assert block == {**teacher, "recurrent_iter": 3} and found.params == 1 and found.flops == pytest.approx(0.5)
    student, net = build_source(block, "network_g"), build_source(teacher, "teacher")
    inherit(student, net)
    assert torch.equal(student.conv[0].weight, net.conv[0].weight)


def test_weights_of_a_restormer_alone_are_a_teacher_to_make_a_student_of(tmp_path):
    file = tmp_path / "my_restormer.pth"
    torch.save({"params": Restormer(dim=16, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).state_dict()}, file)
    student = student_of({"checkpoint": str(file)}, {"width": 0.5})
    assert student.block["type"] == "Restormer" and student.block["dim"] == 8
