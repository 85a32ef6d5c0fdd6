"""What every loss of this package holds. A new loss is found in the registry and tested here by itself."""

import functools
import inspect
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.extractors import save_tokenizer
from kd_plugins.extractors.vq_encoder import VQTokenizer
from kd_plugins.features import FeatureTaps, ScaleConversion
from kd_plugins.losses.output_loss import LOSS_REGISTRY


@functools.cache
def tokenizer():
    """A tokenizer of two levels, for small images; its one group has all channels, so that a dead one is not amplified."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = VQTokenizer(
            ch=4, ch_mult=[1, 2], num_res_blocks=1, attention_levels=[1], z_channels=4, embed_dim=4, n_embed=8, groups=1
        )
        nn.init.normal_(net.quantize.embedding.weight)
    folder = tempfile.mkdtemp()
    save_tokenizer(net, Path(folder) / "tokenizer.safetensors", torch.float32)
    return {"weights": f"{folder}/tokenizer.safetensors"}


# what a loss needs that has no default
ARGUMENTS = {
    "ContrastRatioLoss": {"extractor": tokenizer()},
    "CodeDistributionLoss": {"extractor": tokenizer()},
    "ExtractorLoss": {"extractor": {"type": "PiqeExtractor"}},
    # own negatives: some batches here are of one image; a space of convolutions: a layer norm amplifies black images by itself
    "ContrastiveImageLoss": {"negatives": ["own"], "extractor": {"type": "TeacherExtractor", "layers": ["1", "3"]}},
}
# the part of a loss that is a distance, where its other parts are not: cross-net attention mixes channels and positions
A_DISTANCE = {"CrossNetAttentionLoss": {"alpha1": 0.0}}
LOSSES = {name: cls for name, cls in LOSS_REGISTRY if cls.__module__.startswith("kd_plugins.losses")}


def asks_for(loss, what):
    return what in inspect.signature(loss.forward).parameters


every_loss = pytest.mark.parametrize("name", sorted(LOSSES))
# a cross entropy, whose least value is the teacher's entropy: tests/losses/test_dckd_loss.py holds where it lies
NO_DISTANCE = {"CodeDistributionLoss"}
OF_IMAGES = ("lq", "gt", "negatives", "encodings")  # a loss that asks for one of these compares images, nothing else
PLACES = [(name, where) for name in sorted(LOSSES) for where in ("output", "feature")]
every_place = pytest.mark.parametrize(
    ("name", "where"), [p for p in PLACES if p[1] == "output" or not any(asks_for(LOSSES[p[0]], what) for what in OF_IMAGES)]
)


def build(name, **arguments):
    loss = LOSSES[name](**ARGUMENTS.get(name, {}), **arguments)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in loss.modules():
            if hasattr(module, "use_teacher"):
                module.use_teacher(conv_net(8).requires_grad_(False).eval())
    return loss


def compare(loss, student, teacher, lq=None, raw=None):
    if lq is None:
        lq = torch.rand(student.shape, generator=torch.Generator().manual_seed(2)).to(student.dtype)
    negatives = torch.stack((lq, lq.flip(-1))) if lq.shape == student.shape else None
    context = {
        "stride": 2,
        "lq": lq,
        "gt": teacher.detach().flip(-1),
        "negatives": negatives,
        **({} if raw is None else {"raw": raw}),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same random window at each call
        return loss(student, teacher, **{name: value for name, value in context.items() if asks_for(loss, name)})


def conv_net(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, 3, 3, padding=1),
    )


def restormer(width):
    return Restormer(dim=width, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 1, 1, 1])


NETS = {  # network of a width, its first layer, the layer that is compared
    "conv net": (conv_net, "0", "3"),
    "restormer": (restormer, "patch_embed.proj", "encoder_level2"),
}
every_net = pytest.mark.parametrize("net", NETS)


def first_gradient(name, net, where, x, prepare=None):
    """A step's loss, and its gradient at the first layer of a student under a teacher twice as wide."""
    torch.manual_seed(0)
    make, first, layer = NETS[net]
    student, teacher = make(4), make(8)
    if prepare:
        prepare(student, teacher)
    taps = [FeatureTaps(n, [layer]) for n in (student, teacher)]
    with taps[0]:
        images = [student(x)]
    with torch.no_grad(), taps[1]:
        images.append(teacher(x))
    mine, theirs = (t.collect()[layer] for t in taps)
    if where == "feature":
        scm = ScaleConversion({"g": [mine.shape[1]]}, {"g": [theirs.shape[1]]})
        pair = scm("g", 0, mine, theirs.shape[-2:]), theirs
    else:
        pair = images
    loss = compare(build(name), *pair, lq=x, raw=mine if where == "feature" else None)
    loss.backward()
    return loss.detach(), student.get_submodule(first).weight.grad


def test_the_losses_of_the_package_are_found():
    assert {
        "BrisqueFeatureLoss",
        "CodeDistributionLoss",
        "ContrastRatioLoss",
        "ContrastiveImageLoss",
        "CrossNetAttentionLoss",
        "ExtractorLoss",
        "PiqeFeatureLoss",
        "SpatialKLLoss",
    } <= set(LOSSES)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - NO_DISTANCE))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_zero_where_student_and_teacher_agree(name, dtype):
    torch.manual_seed(0)
    for teacher in (torch.randn(2, 3, 16, 12), torch.rand(1, 3, 33, 17), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)):
        loss = compare(build(name, **A_DISTANCE.get(name, {})), teacher.to(dtype).clone(), teacher.to(dtype))
        assert loss.shape == ()
        assert abs(loss.item()) <= 1e-6


@every_loss
def test_more_than_zero_where_they_differ(name):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 2, 3, 16, 16)
    assert compare(build(name), student, teacher) > 1e-4


@every_loss
def test_loss_weight_multiplies(name):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 2, 3, 16, 16)
    torch.testing.assert_close(compare(build(name, loss_weight=3.0), student, teacher), 3 * compare(build(name), student, teacher))
    assert compare(build(name, loss_weight=0.0), student, teacher) == 0


@every_place
@every_net
def test_the_students_first_layer_gets_a_gradient(name, net, where):
    loss, gradient = first_gradient(name, net, where, torch.rand(2, 3, 16, 16))
    assert torch.isfinite(loss) and loss > 0
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()  # each of its channels


@every_loss
def test_the_teacher_gets_none(name):
    torch.manual_seed(0)
    student = torch.rand(2, 3, 16, 16, requires_grad=True)
    teacher = torch.rand(2, 3, 16, 16)
    before = teacher.clone()
    compare(build(name), student, teacher).backward()
    assert torch.equal(teacher, before)
    assert student.grad.any()


def kill_student(student, teacher):
    nn.init.constant_(student[2].bias, -100.0)


def kill_teacher(student, teacher):
    nn.init.constant_(teacher[2].bias, -100.0)


def kill_some(student, teacher):
    for net in (student, teacher):
        nn.init.constant_(net[2].bias[::2], -100.0)


def kill_all(student, teacher):
    kill_student(student, teacher)
    kill_teacher(student, teacher)


@every_place
@pytest.mark.parametrize("kill", [kill_student, kill_teacher, kill_some, kill_all], ids=lambda kill: kill.__name__)
def test_dead_channels_give_finite_gradients(name, where, kill):
    loss, gradient = first_gradient(name, "conv net", where, torch.rand(2, 3, 16, 16), kill)
    assert torch.isfinite(loss)
    # through a dead layer none passes; how much a silent channel amplifies is bounded
    assert gradient is not None and torch.isfinite(gradient).all() and gradient.abs().max() < 1e3


@every_place
@every_net
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images_give_finite_gradients(name, net, where, value):
    loss, gradient = first_gradient(name, net, where, torch.full((2, 3, 16, 16), value))
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all() and gradient.abs().max() < 1e3


@every_loss
def test_dead_and_constant_features_give_finite_gradients(name):
    torch.manual_seed(0)
    random, zero, flat = torch.randn(2, 3, 12, 12), torch.zeros(2, 3, 12, 12), torch.full((2, 3, 12, 12), 7.0)
    half = torch.cat((random[:, :2], zero[:, :1]), 1)
    for student in (random, zero, flat, half):
        for teacher in (random, zero, flat, half):
            leaf = student.clone().requires_grad_()
            loss = compare(build(name), leaf, teacher)
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(leaf.grad).all() and leaf.grad.abs().max() < 1e3


@every_place
@every_net
def test_bf16_autocast_keeps_the_gradient_finite_and_alive(name, net, where):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = first_gradient(name, net, where, x)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all() and gradient.any()


@every_place
@every_net
def test_bf16_networks_and_inputs(name, net, where):
    make, first, layer = NETS[net]
    torch.manual_seed(0)
    student, teacher = make(4).bfloat16(), make(4).bfloat16()
    x = torch.rand(2, 3, 16, 16).bfloat16()
    taps = [FeatureTaps(n, [layer]) for n in (student, teacher)]
    with taps[0], taps[1]:
        images = [n(x) for n in (student, teacher)]
    features = [t.collect()[layer] for t in taps]
    mine, theirs = images if where == "output" else features
    assert mine.dtype == torch.bfloat16
    loss = compare(build(name), mine, theirs.detach(), lq=x)
    loss.backward()
    gradient = student.get_submodule(first).weight.grad
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all() and gradient.any()


@every_loss
def test_channels_last_changes_nothing(name):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 2, 3, 16, 16)
    other = [x.contiguous(memory_format=torch.channels_last) for x in (student, teacher)]
    torch.testing.assert_close(compare(build(name), *other), compare(build(name), student, teacher))


@every_loss
def test_an_option_block_builds_it(name):
    from basicsr.losses import build_loss

    block = {"type": name, "loss_weight": 0.25, **ARGUMENTS.get(name, {})}
    loss = build_loss(dict(block))
    assert isinstance(loss, LOSSES[name]) and loss.loss_weight == 0.25


@every_loss
def test_an_unknown_argument_is_refused(name):
    with pytest.raises((TypeError, ValueError), match="wieght"):
        build(name, wieght=1.0)
