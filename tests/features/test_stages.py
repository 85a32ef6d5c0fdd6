"""Stages and their pairs, measured on networks that are written in the ways people write them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_plugins.features import find_stages, measure, propose_pairs
from kd_plugins.features.stages import Stage, pair_stages
from kd_plugins.teachers import build_teacher


def double(inner, outer):
    return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(True), nn.Conv2d(outer, outer, 3, padding=1), nn.ReLU(True))


class Up(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(inner, outer, 2, 2), double(inner, outer)

    def forward(self, x, skip):
        return self.conv(torch.cat([self.up(x), skip], 1))


class Classic(nn.Module):
    """Down- and up-sampling inside the stages."""

    def __init__(self):
        super().__init__()
        self.inc = double(3, 4)
        self.down1, self.down2 = (nn.Sequential(nn.MaxPool2d(2), double(width, 2 * width)) for width in (4, 8))
        self.up1, self.up2 = Up(16, 8), Up(8, 4)
        self.out = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        first = self.inc(x)
        second = self.down1(first)
        return self.out(self.up2(self.up1(self.down2(second), second), first))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.net = nn.Conv2d(3, 3, 1), Classic()

    def forward(self, x):
        return self.net(self.head(x)) + x


class Convolutions(nn.Module):
    """No containers at all."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
        self.up, self.d, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
        self.act = nn.ReLU(True)

    def forward(self, x):
        return self.out(self.act(self.d(self.up(self.act(self.c(self.b(self.act(self.a(x)))))))))


class Lists(nn.Module):
    """Blocks called one by one, resampling by functions, a refinement, a pooled gate."""

    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.enc, self.mid, self.dec, self.refine = (nn.ModuleList(double(4, 4) for _ in range(2)) for _ in range(4))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        skip = self.head(x)
        for block in self.enc:
            skip = block(skip)
        x = F.avg_pool2d(skip, 2)
        for block in self.mid:
            x = block(x)
        x = F.interpolate(x * self.gate(x), scale_factor=2) + skip
        for block in (*self.dec, *self.refine):
            x = block(x)
        return self.tail(x)


class Tuples(nn.Module):
    """A flat network whose blocks return two maps, one block called twice."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.first(x)
            return x + self.second(y), y

    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.blocks, self.shared = nn.ModuleList(self.Block() for _ in range(4)), double(4, 4)

    def forward(self, x):
        x = self.shared(self.head(x))
        for block in self.blocks:
            x, _ = block(x)
        return self.tail(self.shared(x))


@pytest.mark.parametrize(
    ("network", "encoder", "decoder"),
    [
        (Classic, "inc down1 down2", "up1 up2"),
        (Wrapped, "net.inc net.down1 net.down2", "net.up1 net.up2"),
        (Convolutions, "a c", "d"),
        (Lists, "enc.1 mid.1", "dec.1"),
        (Tuples, "blocks.0.second blocks.1.second", "blocks.2.second blocks.3.second"),
    ],
)
def test_stages(network, encoder, decoder):
    stages = find_stages(network())
    assert [stage.layer for stage in stages.encoder] == encoder.split()
    assert [stage.layer for stage in stages.decoder] == decoder.split()
    assert [stage.depth for stage in (*stages.encoder, *stages.decoder)][-1] == 1
    assert stages.flat == (network is Tuples)
    assert stages.above_bottleneck == (stages.encoder if stages.flat else stages.encoder[:-1])
    roles = stages.roles()
    assert roles[encoder.split()[0]] == "encoder 1" and roles[decoder.split()[0]] == "decoder 1"
    assert ("bottleneck" in roles.values()) == (not stages.flat)
    assert all(stage.shape[0] == 1 and len(stage.shape) == 4 for stage in (*stages.encoder, *stages.decoder))


def test_measuring_leaves_the_network_as_it_was():
    net = Classic()
    net.down1.eval()
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    top = measure(net)
    assert [module.training for module in net.modules()] == modes
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert top.shape == (1, 3, 64, 128) and top.inner[0].name == "inc" and top.inner[0].shape == (1, 4, 64, 128)


class OnlyWide(nn.Module):
    def forward(self, x):
        raise RuntimeError("only images of 1000 rows")


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match=r"OnlyWide takes no image of 64x128, .* \(only images of 1000 rows\).*`pad_to: 8`"):
        measure(OnlyWide())
    with pytest.raises(ValueError, match="no stages were found in Conv2d"):
        find_stages(nn.Conv2d(3, 3, 1))


def test_networks_whose_windows_need_other_sizes_are_measured():
    class Windows(nn.Sequential):
        def forward(self, x):
            assert x.shape[-1] % 7 == 0
            return super().forward(x)

    assert measure(Windows(double(3, 3))).shape == (1, 3, 56, 112)


def test_two_us_are_paired_by_size():
    teacher, student = build_teacher({"checkpoint": "restormer_derain"}).net, Classic()
    assert propose_pairs(student, teacher) == {
        "encoder": [("inc", "encoder_level1"), ("down1", "encoder_level2"), ("down2", "encoder_level3")],
        "decoder": [("up1", "decoder_level2"), ("up2", "decoder_level1")],
    }


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        ([0.25, 0.5], [0.25, 0.5], [(0.25, 0.25), (0.5, 0.5)]),
        ([0.5], [0.25, 0.5], [(0.5, 0.5)]),
        ([0.25, 0.5], [1 / 3], [(0.25, 1 / 3)]),
        ([0.4, 0.45, 0.5], [0.1, 0.2, 0.3, 0.5], [(0.4, 0.2), (0.45, 0.3), (0.5, 0.5)]),
        ([], [0.25], []),
    ],
)
def test_flat_networks_are_paired_by_depth_in_order(student, teacher, pairs):
    mine, theirs = ([Stage(str(depth), (1, 1, 2, 2), 1.0, depth) for depth in depths] for depths in (student, teacher))
    assert pair_stages(mine, theirs, by_size=False) == [(str(a), str(b)) for a, b in pairs]
