"""The teacher's encoder as a space: it runs no further than needed, and leaves the teacher as it was."""

import gc
import weakref

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.extractors import build_extractor
from kd_plugins.features import EarlyStop, FeatureTaps, TeacherExtractor
from kd_plugins.teachers import build_teacher

ENCODER = ["encoder_level1", "encoder_level2", "encoder_level3"]


@pytest.fixture
def teacher():
    return build_teacher({"checkpoint": "restormer_derain"})


def built(net, **arguments):
    extractor = TeacherExtractor(**arguments)
    extractor.use_teacher(net)
    return extractor


def direct(net, image):
    """The encoder's stages, called one by one; the image needs no padding."""
    first = net.encoder_level1(net.patch_embed(image))
    second = net.encoder_level2(net.down1_2(first))
    third = net.encoder_level3(net.down2_3(second))
    return [first, second, third]


def test_auto_is_the_encoder_above_its_bottleneck(teacher):
    image = torch.rand(2, 3, 24, 32)
    with torch.no_grad():
        found, expected = built(teacher.net)(image), direct(teacher.net, image)
    assert [x.shape[1] for x in found] == [16, 32, 64]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_auto_of_a_flat_network_is_its_first_half():
    net = EDSR(3, 3, num_feat=4, num_block=8, upscale=1).requires_grad_(False).eval()
    image = torch.rand(1, 3, 8, 8)
    for found, expected in zip(built(net)(image), built(net, layers=["body.1", "body.3"])(image), strict=True):
        assert torch.equal(found, expected)


def test_the_decoder_does_not_run(teacher):
    calls = []
    for name, module in teacher.net.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    extractor = built(teacher.net)  # where `auto` looks at the whole network, once
    calls.clear()
    extractor(torch.rand(1, 3, 16, 16))
    assert "encoder_level3.0" in calls
    after = ("down3", "latent", "up", "decoder", "reduce", "refinement")
    late = {"", "output", *(name for name, _ in teacher.net.named_modules() if name.startswith(after))}
    assert not late & set(calls)
    calls.clear()
    built(teacher.net, layers=["encoder_level1"])(torch.rand(1, 3, 16, 16))
    assert "encoder_level1.0" in calls and "down1_2" not in calls


def test_images_are_padded_as_the_network_does_it(teacher):
    image = torch.rand(1, 3, 21, 30)
    padded = torch.nn.functional.pad(image, (0, 2, 0, 3), mode="reflect")
    with torch.no_grad():
        found, expected = built(teacher.net)(image), direct(teacher.net, padded)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_gradient_is_the_images_and_not_the_networks(teacher):
    image = torch.rand(2, 3, 16, 16, requires_grad=True)
    found = built(teacher.net)(image)
    (mine,) = torch.autograd.grad(sum(x.square().mean() for x in found), image)
    (expected,) = torch.autograd.grad(sum(x.square().mean() for x in direct(teacher.net, image)), image)
    torch.testing.assert_close(mine, expected)
    assert mine.abs().flatten(1).amax(1).gt(0).all()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_is_no_part_of_it(teacher):
    extractor = built(teacher.net)
    before = {name: value.data_ptr() for name, value in teacher.net.state_dict().items()}
    assert not extractor.state_dict() and not list(extractor.parameters()) and list(extractor.modules()) == [extractor]
    extractor.train()
    extractor.double().requires_grad_()
    assert not extractor.training and not teacher.net.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert before == {name: value.data_ptr() for name, value in teacher.net.state_dict().items()}  # nothing was copied or converted


def test_the_teachers_own_taps_hear_nothing_of_it(teacher):
    layers = ["encoder_level2", "latent", "decoder_level1"]
    teacher.tap(layers)
    shown, other = torch.rand(2, 2, 3, 16, 16)
    expected = teacher(shown)
    extractor = built(teacher.net)
    alive = []
    handle = teacher.net.encoder_level2.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))

    for _ in range(3):
        image = other.clone().requires_grad_()
        found = extractor(image)
        assert found[0].requires_grad
        del found, image
        gc.collect()
        assert alive and all(reference() is None for reference in alive)  # neither tap nor extractor keeps a graph
        alive.clear()

        handle.remove()
        observation = teacher(shown)
        handle = teacher.net.encoder_level2.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))
        assert list(observation.features) == layers
        assert not any(value.requires_grad for value in observation.features.values())
        assert all(torch.equal(observation.features[name], expected.features[name]) for name in layers)
        assert torch.equal(observation.image, expected.image)


def test_it_keeps_nothing_of_the_teachers_own_passes(teacher):
    extractor = built(teacher.net)
    alive = []
    teacher.net.encoder_level3.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))
    teacher(torch.rand(1, 3, 16, 16))
    gc.collect()
    assert len(alive) == 1 and alive[0]() is None
    assert extractor(torch.rand(1, 3, 16, 16))[2].shape == (1, 64, 4, 4)


def test_two_of_them_on_one_network(teacher):
    image = torch.rand(1, 3, 16, 16)
    shallow, whole = built(teacher.net, layers="encoder_level1"), built(teacher.net)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(shallow(image)[0], whole(image)[0])
            assert len(whole(image)) == 3


def test_an_error_inside_the_network_passes_and_the_taps_work_again(teacher):
    extractor, taps = built(teacher.net), FeatureTaps(teacher.net, ["latent"])
    with pytest.raises(RuntimeError):
        extractor(torch.rand(1, 5, 16, 16))  # no such number of channels
    with taps:
        teacher(torch.rand(1, 3, 16, 16))
    assert taps.collect()["latent"].shape == (1, 128, 2, 2)
    assert len(extractor(torch.rand(1, 3, 16, 16))) == 3


class Overwriting(nn.Module):
    """Its layers' outputs are overwritten after they were tapped; one layer runs only on demand."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = nn.ReLU(inplace=True)
        self.skips = False

    def forward(self, x):
        x = self.act(self.first(x))
        x = self.second(x)
        x += 1
        return x if self.skips else self.third(x)


def test_features_are_what_the_layers_returned():
    net = Overwriting().requires_grad_(False).eval()
    extractor = built(net, layers=["first", "second", "third"])
    for _ in range(3):
        x = torch.randn(1, 3, 4, 4, requires_grad=True)
        a = net.first(x)
        b = net.second(a.relu())
        for found, expected in zip(extractor(x), (a, b, net.third(b + 1)), strict=True):
            torch.testing.assert_close(found, expected)


def test_a_layer_that_does_not_run_is_named():
    net = Overwriting().requires_grad_(False).eval()
    taps = EarlyStop(net, ["first", "third"])
    net.skips = True
    with pytest.raises(ValueError, match="'third' did not run"):
        taps.run(net, torch.randn(1, 3, 4, 4))
    net.skips = False
    assert list(taps.run(net, torch.randn(1, 3, 4, 4))) == ["first", "third"]


def test_mistakes_are_explained(teacher):
    with pytest.raises(RuntimeError, match=r"before use_teacher\(net\)"):
        build_extractor({"type": "TeacherExtractor"})(torch.rand(1, 3, 16, 16))
    with pytest.raises(KeyError, match="no layer 'encoder_levl2'; nearest: encoder_level2"):
        built(teacher.net, layers=["encoder_level1", "encoder_levl2"])
    with pytest.raises(ValueError, match="no stages were found in Sequential; name the layers"):
        built(nn.Sequential(nn.Conv2d(3, 3, 1)).requires_grad_(False).eval())
    with pytest.raises(ValueError, match="layers: "):
        TeacherExtractor(layers=[])
    with pytest.raises(ValueError, match="Restormer is not frozen"):
        built(Restormer(dim=8, num_blocks=[1, 1, 1, 1], heads=[1, 1, 1, 1]).eval())
    wrapped = built(teacher.eval(), layers=["net.latent"])
    with pytest.raises(RuntimeError, match="Teacher runs without gradient; expected the teacher's network"):
        wrapped(torch.rand(1, 3, 16, 16, requires_grad=True))


def test_bf16_images_and_autocast(teacher):
    extractor = built(teacher.net)
    image = torch.rand(1, 3, 16, 16)
    expected = extractor(image)
    for a, b in zip(extractor(image.bfloat16()), expected, strict=True):  # an image in another type than the network
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05 * b.abs().max().item())
    image.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        sum(x.float().mean() for x in extractor(image)).backward()
    assert torch.isfinite(image.grad).all() and image.grad.any()


class SelfOverwriting(nn.Module):
    """What its second convolution reads is overwritten by what it returns, as PLKSR's layers do in eval mode."""

    def __init__(self, in_place):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.in_place = in_place

    def forward(self, x):
        x = self.first(x) ** 2
        if self.in_place:
            x[:, :2] = self.second(x[:, :2]) ** 2
            return x
        return torch.cat([self.second(x[:, :2]) ** 2, x[:, 2:]], 1)


def test_a_network_that_overwrites_what_its_backward_pass_needs_has_the_right_gradient():
    net, plain = (SelfOverwriting(in_place).requires_grad_(False).eval() for in_place in (True, False))
    plain.load_state_dict(net.state_dict())
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        net(image).sum().backward()
    extractor = TeacherExtractor(layers=["first", "second"])
    extractor.use_teacher(net)
    reference = TeacherExtractor(layers=["first", "second"])
    reference.use_teacher(plain)
    for _ in range(2):  # the first pass finds it out
        found, expected = (torch.autograd.grad(sum(map(torch.sum, e(image))), image)[0] for e in (extractor, reference))
        torch.testing.assert_close(found, expected)
