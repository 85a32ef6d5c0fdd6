"""The contrastive loss is the ratio that its docstring says, over the negatives that the option file names."""

import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from torch import nn

from kd_plugins.losses import ContrastiveImageLoss
from kd_plugins.losses.distances import summed_distance
from kd_plugins.teachers import build_teacher

LEVELS = ["0", "1", "2", "3", "4"]


def encoder(levels=5, dtype=torch.float32, calls=None):
    """A frozen network of convolutions of which each is a level."""
    generator = torch.Generator().manual_seed(3)
    widths = [3, *(4 + i for i in range(levels))]
    net = nn.Sequential(
        *(nn.Conv2d(a, b, 3, padding=1, stride=1 + (i % 2)) for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)))
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    if calls is not None:
        net[0].register_forward_hook(lambda module, args, output: calls.append((len(args[0]), torch.is_grad_enabled())))
    return net.to(dtype).requires_grad_(False).eval()


def build(net=None, layers=LEVELS, **arguments):
    loss = ContrastiveImageLoss(extractor={"type": "TeacherExtractor", "layers": layers}, **arguments)
    loss.extractor.use_teacher(net if net is not None else encoder())
    return loss


def images(batch=4, size=(16, 12), dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 3, *size, generator=generator).to(dtype) for _ in range(3)]


def plain(net, student, teacher, lq, negatives, weights, count=None, eps=1e-6):
    """The formula, sample by sample and negative by negative, in float64."""
    net = net.double()
    student, teacher, lq = (x.double() for x in (student, teacher, lq))
    batch = len(student)
    total = torch.zeros((), dtype=torch.float64)
    a, p, n = student, teacher, lq
    for weight, layer in zip(weights, net, strict=True):
        a, p, n = layer(a), layer(p), layer(n)
        for i in range(batch):
            chosen = [i] * ("own" in negatives)
            if "others" in negatives:
                chosen += [(i + k) % batch for k in range(1, batch if count is None else count + 1)]
            far = sum((a[i] - n[j]).abs().mean() for j in chosen) / len(chosen)
            total = total + weight * (a[i] - p[i]).abs().mean() / (far + eps) / batch
    return total


@pytest.mark.parametrize(
    ("negatives", "count"), [(["own"], None), (["others"], None), (["own", "others"], None), (["own", "others"], 2), ("others", 1)]
)
def test_equals_the_plain_formula(negatives, count):
    student, teacher, lq = images()
    expected_leaf, leaf = student.clone().double().requires_grad_(), student.clone().requires_grad_()
    weights = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    expected = 0.7 * plain(encoder(), expected_leaf, teacher, lq, negatives, weights, count)
    loss = build(negatives=negatives, count=count, loss_weight=0.7)(leaf, teacher, lq)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(leaf.grad.double(), expected_leaf.grad, rtol=1e-3, atol=1e-8)


def test_a_value_computed_by_hand():
    """A space of one level that doubles the image: near 2 * 0.1, far 2 * (0.3 and 0.5), averaged 0.8; the same for both samples."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3, bias=False)).requires_grad_(False).eval()
    nn.init.constant_(net[0].weight, 2.0)
    student = torch.full((2, 3, 8, 8), 0.5)
    lq = torch.cat((torch.full((1, 3, 8, 8), 0.2), torch.full((1, 3, 8, 8), 1.0)))  # 0.3 and 0.5 away
    loss = build(net, ["0"])
    torch.testing.assert_close(loss(student, student + 0.1, lq), torch.tensor(0.2 / (0.8 + 1e-6)))
    own = build(net, ["0"], negatives=["own"])
    torch.testing.assert_close(own(student, student + 0.1, lq), torch.tensor((0.2 / 0.6 + 0.2 / 1.0) / 2), rtol=1e-5, atol=0)


def test_the_sum_of_signs_is_the_gradient():
    student, _, lq = images(size=(3, 2), dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: summed_distance(x, (lq.roll(-shift, 0) for shift in (0, 1, 3))), (student,))


def test_phi_runs_twice_whatever_the_number_of_negatives():
    calls = []
    loss = build(encoder(calls=calls))
    student, teacher, lq = images(batch=5)
    loss(student.requires_grad_(), teacher, lq)
    assert calls == [(5, True), (10, False)]  # student with gradient; teacher and inputs together, without


def test_the_gradient_reaches_the_student_and_nothing_else():
    net = encoder()
    tensors = [x.requires_grad_() for x in images()]
    build(net)(*tensors).backward()
    student, teacher, lq = (x.grad for x in tensors)
    assert torch.isfinite(student).all() and student.flatten(1).abs().amax(1).gt(0).all()
    assert teacher is None and lq is None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_step_brings_the_student_nearer_to_the_teacher_and_away_from_the_input():
    _, teacher, lq = images()
    leaf = ((teacher + lq) / 2).requires_grad_()
    loss = build(negatives=["own"])
    (gradient,) = torch.autograd.grad(loss(leaf, teacher, lq), leaf)
    moved = (leaf - 1e-3 * gradient / gradient.abs().mean()).detach()
    assert (moved - teacher).abs().mean() < (leaf - teacher).abs().mean()
    assert (moved - lq).abs().mean() > (leaf - lq).abs().mean()


@pytest.mark.parametrize(("levels", "expected"), [(1, [1]), (3, [1 / 8, 1 / 4, 1]), (4, [1 / 16, 1 / 8, 1 / 4, 1])])
def test_fewer_levels_take_the_last_weights(levels, expected):
    student, teacher, lq = images()
    loss = build(encoder(levels), LEVELS[:levels])(student, teacher, lq)
    torch.testing.assert_close(
        loss.double(), plain(encoder(levels), student, teacher, lq, ["own", "others"], expected), rtol=1e-5, atol=0
    )


def test_more_levels_need_weights():
    student, teacher, lq = images()
    layers = [str(i) for i in range(6)]
    with pytest.raises(ValueError, match="TeacherExtractor has 6 levels, but no `weights`"):
        build(encoder(6), layers)(student, teacher, lq)
    with pytest.raises(ValueError, match=r"6 levels, but weights=\[1, 2\]"):
        build(encoder(6), layers, weights=[1, 2])(student, teacher, lq)
    weights = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    loss = build(encoder(6), layers, weights=weights)(student, teacher, lq)
    torch.testing.assert_close(
        loss.double(), plain(encoder(6), student, teacher, lq, ["own", "others"], weights), rtol=1e-5, atol=0
    )


def test_others_of_a_batch_of_one_are_refused():
    one = images(batch=1)
    for negatives in (["own", "others"], ["others"]):
        with pytest.raises(ValueError, match=r"negatives=\[.*'others'\].*a batch of 1 .*negatives: \[own\]"):
            build(negatives=negatives)(*one)
    assert build(negatives=["own"])(*one) > 0
    with pytest.raises(ValueError, match=r"count=3, but a batch of 3 has 2 others"):
        build(count=3)(*images(batch=3))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_super_resolution_resizes_the_input(scale):
    """As MATLAB's imresize does, which made the field's low-resolution images; at the borders the two differ."""
    student, teacher, _ = images(size=(48, 72))
    small = images(size=(48 // scale, 72 // scale))[2]
    large = torch.stack([imresize(image, scale) for image in small]).clamp(0, 1)
    seen = []
    net = encoder()
    net[0].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    loss = build(net)(student, teacher, small)
    torch.testing.assert_close(seen[1][4:, :, 12:-12, 12:-12], large[..., 12:-12, 12:-12])
    torch.testing.assert_close(loss, build()(student, teacher, large), rtol=1e-2, atol=0)


def test_shapes_that_do_not_fit_are_refused():
    student, teacher, lq = images()
    loss = build()
    with pytest.raises(ValueError, match="expected the same shape"):
        loss(student, teacher[:, :, :8], lq)
    with pytest.raises(ValueError, match=r"lq is \(4, 4, 16, 12\)"):
        loss(student, teacher, torch.rand(4, 4, 16, 12))
    with pytest.raises(ValueError, match=r"lq is \(2, 3, 16, 12\)"):
        loss(student, teacher, lq[:2])


def test_a_window_is_one_and_the_same_for_all_images():
    """The space is linear and each image another multiple of one random picture: the ratio is that of the multiples, everywhere."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False)).requires_grad_(False).eval()
    picture = torch.rand(3, 20, 28).expand(2, -1, -1, -1)
    loss = build(net, ["0"], window=8)
    for seed in range(5):
        torch.manual_seed(seed)
        torch.testing.assert_close(loss(picture * 0.6, picture, picture * 0.4), torch.tensor(2.0), rtol=1e-4, atol=0)


def test_a_window_makes_the_space_see_that_much():
    sizes = []
    net = encoder(1)
    net[0].register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape[-2:])))
    student, teacher, lq = images(size=(20, 28))
    values = {build(net, ["0"], window=8)(student, teacher, lq).item() for _ in range(8)}
    assert set(sizes) == {(8, 8)}
    assert len(values) > 1  # a new window at each call
    whole = build(net, ["0"])(student, teacher, lq)
    torch.testing.assert_close(build(net, ["0"], window=64)(student, teacher, lq), whole)


def test_bf16_autocast_is_finite_and_near():
    student, teacher, lq = images()
    leaf = student.clone().requires_grad_()
    expected = build()(student, teacher, lq)
    with torch.autocast("cpu", torch.bfloat16):
        loss = build()(leaf, teacher, lq)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(leaf.grad).all() and leaf.grad.any()
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)


def test_an_input_without_degradation_gives_a_finite_gradient():
    """The student returns its input, which is its negative: the denominator is eps."""
    student, teacher, _ = images()
    leaf = student.clone().requires_grad_()
    loss = build(negatives=["own"])(leaf, teacher, student)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": ["other"]}, "'other'.*expected one of own, others"),
        ({"negatives": []}, "expected one of own, others or a list of at least 1"),
        ({"negatives": ["own"], "count": 2}, "count: 2, expected `others`"),
        ({"count": 0}, "count: 0"),
        ({"window": 4}, "window: 4"),
        ({"eps": 0.0}, "eps: 0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveImageLoss(**arguments)


def test_by_default_the_space_is_the_teachers_own_encoder():
    teacher = build_teacher({"checkpoint": "restormer_derain"})
    loss = ContrastiveImageLoss()
    loss.extractor.use_teacher(teacher.net)
    assert not loss.state_dict() and not list(loss.parameters())
    clean, _, noise = images(batch=2, size=(20, 28))
    lq = (clean + 0.1 * noise).clamp(0, 1)
    leaf = lq.clone().mul(0.9).requires_grad_()
    loss(leaf, teacher(lq).image, lq).backward()
    assert torch.isfinite(leaf.grad).all() and leaf.grad.any()
