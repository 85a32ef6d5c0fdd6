"""A student that lost channels or blocks is fitted to its teacher's answers, layer by layer."""

import copy
import random

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn
from torch.nn import functional as F

from kd_plugins.archs import Restormer
from kd_plugins.archs.nafnet_arch import NAFNet
from kd_plugins.students import first_order, inherit
from kd_plugins.teachers.network import build_source

RESTORMER = {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}
NAFNET = {"width": 8, "middle_blk_num": 2, "enc_blk_nums": [1], "dec_blk_nums": [1]}


def photos(size, count=4, seed=0):
    """Crops of a photo, (count, 3, size, size)."""
    whole = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 512 - size, (count, 2), generator=generator).tolist()
    return torch.stack([whole[:, y : y + size, x : x + size] for y, x in corners])


def psnr(net, lq, gt):
    with torch.no_grad():
        return -10 * (net.eval()(lq).clamp(0, 1) - gt).square().mean().log10().item()


class Layers(nn.Module):
    """One layer of a kind between others."""

    def __init__(self, kind, width=16):
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, width, 3, padding=1)
        make = {
            "dense": lambda: nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect"),
            "strided": lambda: nn.Conv2d(width, width, (2, 4), stride=2, padding=(0, 1), bias=False),
            "dilated": lambda: nn.Conv2d(width, width, 3, padding="same", dilation=2),
            "grouped": lambda: nn.Conv2d(width, width, 3, padding=1, groups=4),
            "depthwise": lambda: nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            "linear": lambda: nn.Linear(width, width),
            "transposed": lambda: nn.ConvTranspose2d(width, width, 2, stride=2),
            "twice": lambda: nn.Conv2d(width, width, 1),
            "mixer": lambda: nn.Linear(4, 4),
        }
        self.layer, self.last = make[kind](), nn.Conv2d(width, 3, 1)

    def forward(self, x):
        x = self.first(x).tanh()
        if self.kind == "mixer":  # of four neighbours of a channel
            x = self.layer(x.unflatten(-1, (-1, 4))).flatten(-2)
        else:
            x = self.layer(x.movedim(1, -1)).movedim(-1, 1) if self.kind == "linear" else self.layer(x)
        return self.last(self.layer(x) if self.kind == "twice" else x)


def pair(kind):
    torch.manual_seed(0)
    return Layers(kind), Layers(kind, 8)


@pytest.mark.parametrize("kind", ["dense", "strided", "dilated", "grouped", "depthwise", "linear"])
def test_each_kind_of_layer_comes_nearer_to_its_teacher(kind):
    teacher, student = pair(kind)
    kept = inherit(student, teacher)
    x = photos(24)

    def errors():
        seen = [[], []]
        for net, found in zip((student, teacher), seen, strict=True):
            handles = [layer.register_forward_hook(lambda *a, found=found: found.append(a[2])) for layer in (net.layer, net.last)]
            net(x)
            for handle in handles:
                handle.remove()
        index = kept["layer"] if kind != "linear" else torch.arange(0)
        mine, theirs = seen
        compared = [(mine[1], theirs[1])] + ([(mine[0], theirs[0][:, index])] if len(index) else [])
        return [F.mse_loss(a, b).item() for a, b in compared]

    with torch.no_grad():
        before, weight = errors(), student.layer.weight.clone()
        assert all(torch.equal(inherit(student, teacher, images=x)[name], index) for name, index in kept.items())
        after = errors()
    assert not torch.equal(student.layer.weight, weight) or kind == "depthwise"
    assert after[0] < 0.7 * before[0] and all(new <= old for new, old in zip(after, before, strict=True))


def test_a_depthwise_layer_of_changed_maps_is_fitted_channel_by_channel():
    """Its own weights would be right as they are, if what it reads were."""
    teacher, student = pair("depthwise")
    teacher.first, student.first = (nn.Sequential(nn.Conv2d(3, 16, 1), nn.Tanh(), nn.Conv2d(16, width, 1)) for width in (16, 8))
    student.first[0], student.first[2] = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
    inherit(student, teacher)
    before = student.layer.weight.clone()
    inherit(student, teacher, images=photos(24))
    assert not torch.equal(student.layer.weight, before)


@pytest.mark.parametrize(("make", "settings"), [(Restormer, RESTORMER), (NAFNet, NAFNET)])
def test_where_nothing_is_left_out_the_student_is_its_teacher_bit_for_bit(make, settings):
    torch.manual_seed(0)
    teacher, student = make(**settings), make(**settings)
    x = photos(32)
    inherit(student, teacher, images=x)
    assert torch.equal(student(x), teacher(x))
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), teacher.state_dict().values(), strict=True))


def test_layers_before_the_first_loss_stay_bit_for_bit():
    torch.manual_seed(0)
    teacher, student = Restormer(**RESTORMER), Restormer(**{**RESTORMER, "num_blocks": [1, 1, 1, 1]})
    inherit(student, teacher, images=photos(32))
    theirs = teacher.state_dict()
    same = {name for name, tensor in student.state_dict().items() if name in theirs and torch.equal(tensor, theirs[name])}
    assert {name for name in theirs if name.startswith(("patch_embed", "encoder"))} <= same
    assert "output.weight" not in same and "refinement.0.ffn.project_out.weight" not in same


@pytest.mark.parametrize(
    ("teacher", "student", "degrade"),
    [
        (
            "srresnet_x4",
            {"type": "MSRResNet", "num_feat": 12, "num_block": 8, "upscale": 4},
            lambda gt: F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1),
        ),
        (
            "restormer_denoise",
            {"type": "Restormer", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 1.33},
            lambda gt: gt + 25 / 255 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(0)),
        ),
    ],
    ids=["super-resolution", "denoising"],
)
def test_a_narrowed_student_starts_no_worse_than_its_input(teacher, student, degrade):
    teacher = build_source({"checkpoint": teacher}, "teacher")
    torch.manual_seed(0)
    student = build_source(student, "network_g")
    gt, held = photos(64, 12), photos(96, 4, seed=1)
    lq = degrade(held)
    importance = first_order(teacher, [{"lq": degrade(gt), "gt": gt}])
    inherit(student, teacher, "importance", importance)
    before = psnr(student, lq, held)
    inherit(student, teacher, "importance", importance, degrade(gt))
    after = psnr(student, lq, held)
    plain = psnr(nn.Identity() if lq.shape == held.shape else nn.Upsample(scale_factor=4, mode="bicubic"), lq, held)
    assert after > plain + 0.3 and after > before + 0.4, (before, after, plain)


def test_it_is_the_same_each_time_and_leaves_modes_and_random_numbers_alone():
    torch.manual_seed(0)
    teacher, student = NAFNet(**NAFNET), NAFNet(**{**NAFNET, "width": 4})
    other = copy.deepcopy(student)
    teacher.train()
    student.eval()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for each in (student, other):
        inherit(each, teacher, images=photos(32))
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), other.state_dict().values(), strict=True))
    assert teacher.training and not student.training
    assert torch.equal(states[0], torch.get_rng_state()) and random.getstate() == states[2]
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert all(p.requires_grad and p.grad_fn is None for p in student.parameters())
    assert not any(layer._forward_hooks for net in (student, teacher) for layer in net.modules())


@pytest.mark.parametrize("kind", ["transposed", "twice", "mixer"])
def test_a_layer_that_cannot_be_fitted_is_named_and_stays_as_inherited(kind, log):
    teacher, student = pair(kind)
    inherit(student, teacher)
    before = copy.deepcopy(student.state_dict())
    inherit(student, teacher, images=photos(24))
    (said,) = (line for line in log().splitlines() if "init:refit" in line)
    assert "not fitted but as inherited: layer (" in said
    assert torch.equal(student.layer.weight, before["layer.weight"])
    assert not torch.equal(student.last.weight, before["last.weight"])


def test_an_error_on_the_way_leaves_the_student_as_it_was():
    torch.manual_seed(0)
    teacher, student = NAFNet(**NAFNET), NAFNet(**{**NAFNET, "width": 4})
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(RuntimeError):
        inherit(student, teacher, images=torch.rand(2, 5, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())


def test_an_input_that_hardly_varies_gets_no_large_weight():
    """It would fit these images by chance, and explode in the first step of training."""
    teacher, student = pair("dense")
    teacher.first.weight.data[::2] *= 1e-4
    inherit(student, teacher, "first", images=photos(24))
    assert student.layer.weight.abs().max() < 5 * teacher.layer.weight.abs().max()
