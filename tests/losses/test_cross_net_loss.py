"""CrossNetAttentionLoss against its formula, and what it must not build."""

import math

import pytest
import torch
import torch.nn.functional as F
from cross_net import exact, features, plain_channel, plain_spatial
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kd_plugins.losses import CrossNetAttentionLoss
from kd_plugins.losses.cross_net_attention import gaussian_kernel_distance, unit_positions

BRANCHES = ("direct", "channel", "spatial")


def only(branch, **arguments):
    """The loss with one branch."""
    return CrossNetAttentionLoss(**{f"{name}_weight": float(name == branch) for name in BRANCHES}, **arguments)


# ------------------------------------------------------------------------------------------------ the branches


@pytest.mark.parametrize("distance", [0.2, 0.5, 1.0, 1.4, 1.7])
def test_the_default_sigma_keeps_a_gradient_at_the_distances_of_real_features(distance):
    """docs/skd.md: 0.2 to 1.7. A third of the largest gradient is left everywhere."""
    sigma = CrossNetAttentionLoss().sigma
    angle = torch.tensor(2 * math.asin(distance / 2), dtype=torch.float64, requires_grad=True)
    student = torch.stack((angle.cos(), angle.sin())).view(1, 2, 1, 1)
    gaussian_kernel_distance(student, torch.tensor([1.0, 0.0]).double().view(1, 2, 1, 1), sigma).backward()
    assert angle.grad is not None
    by_distance = angle.grad.item() / math.cos(angle.item() / 2)
    assert by_distance > math.exp(-0.5) / sigma / 3


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("c_s", [3, 6, 8])
def test_the_loss_is_the_sum_of_its_branches(normalise, c_s):
    p, t, s = features(c_s=c_s)
    q, k, r = (unit_positions(x) if normalise else x for x in (t, p, s))
    s_c = plain_channel(q, r, s, 0.5 * math.sqrt(63)).view_as(t)
    s_s = plain_spatial(q, k, p, 2 * math.sqrt(6)).view_as(t)
    direct, channel, spatial = (gaussian_kernel_distance(x, t, 0.7) for x in (p, s_c, s_s))
    arguments = {"sigma": 0.7, "channel_lambda": 0.5, "spatial_lambda": 2.0, "normalise": normalise}
    loss = CrossNetAttentionLoss(0.1, alpha1=0.3, **arguments)
    torch.testing.assert_close(loss(p, t, s), 0.1 * (direct + 0.3 * (channel + spatial)), rtol=1e-3, atol=0)
    weighted = CrossNetAttentionLoss(alpha1=0.3, direct_weight=2.0, channel_weight=3.0, spatial_weight=5.0, **arguments)
    torch.testing.assert_close(weighted(p, t, s), 2 * direct + 0.9 * channel + 1.5 * spatial, rtol=1e-3, atol=0)
    for branch, value in zip(BRANCHES, (direct, channel, spatial), strict=True):
        torch.testing.assert_close(only(branch, **arguments)(p, t, s), value, rtol=1e-3, atol=0)


def test_raw_is_what_the_channel_branch_reads_and_only_that():
    student, teacher, raw = features()
    other = features(seed=1)[2]
    assert only("channel")(student, teacher, raw) != only("channel")(student, teacher, other)
    assert only("channel")(student, teacher, raw) == only("channel")(other[:, :1].expand_as(student), teacher, raw)
    for branch in ("direct", "spatial"):
        assert only(branch)(student, teacher, raw) == only(branch)(student, teacher, other)
    assert only("channel")(student, teacher) == only("channel")(student, teacher, student)


def test_raw_of_another_size_is_resized_bilinearly():
    student, teacher, _ = features(height=8, width=12)
    raw = features(c_s=3, height=4, width=6)[2]
    resized = F.interpolate(raw, size=(8, 12), mode="bilinear", align_corners=False)
    exact(CrossNetAttentionLoss()(student, teacher, raw), CrossNetAttentionLoss()(student, teacher, resized))


def test_where_student_and_teacher_agree_the_direct_distance_is_zero_and_the_attention_branches_are_mixtures():
    _, teacher, _ = features()
    teacher = teacher + 2 * teacher[:, :1]  # channels that resemble each other
    same = {branch: only(branch)(teacher, teacher, teacher).item() for branch in BRANCHES}
    assert same["direct"] == 0 and same["channel"] > 0.01 and same["spatial"] > 0.01
    # a small lambda lets each position answer itself
    assert only("spatial", spatial_lambda=1e-6)(teacher, teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    # and each channel, where no other resembles it: one channel a position
    apart = torch.eye(6, dtype=torch.float64).repeat(1, 4).view(1, 6, 4, 6)
    assert only("channel", channel_lambda=1e-3)(apart, apart, apart).item() == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------------------------ lambda


def test_learnable_lambdas_start_at_the_fixed_ones_are_trained_and_stay_positive():
    student, teacher, raw = features(dtype=torch.float32)
    fixed, learnable = CrossNetAttentionLoss(), CrossNetAttentionLoss(learnable=True)
    assert not list(fixed.parameters())
    torch.testing.assert_close(learnable(student, teacher, raw), fixed(student, teacher, raw))
    optimizer = torch.optim.SGD(learnable.parameters(), lr=100.0)
    before = learnable(student, teacher, raw)
    before.backward()
    assert len(list(learnable.parameters())) == 2 and all(p.grad is not None and p.grad != 0 for p in learnable.parameters())
    optimizer.step()
    assert all(p != 0 for p in learnable.parameters())
    assert learnable._lambda("channel", 63) > 0 and learnable._lambda("spatial", 6) > 0
    assert torch.isfinite(learnable(student, teacher, raw)) and learnable(student, teacher, raw) != before
    assert len(list(only("channel", learnable=True).parameters())) == 1  # none that nothing would train


@pytest.mark.parametrize("branch", ["channel", "spatial"])
def test_a_large_lambda_averages(branch):
    student, teacher, raw = features()
    loss = only(branch, **{f"{branch}_lambda": 1e9})
    dim = 1 if branch == "channel" else (2, 3)
    mean = (raw if branch == "channel" else student).mean(dim, keepdim=True).expand_as(teacher)
    torch.testing.assert_close(loss(student, teacher, raw), gaussian_kernel_distance(mean, teacher, loss.sigma))


# ------------------------------------------------------------------------------------------------ gradients and precision


@pytest.mark.parametrize("normalise", [True, False])
def test_gradients_are_right_in_float64(normalise):
    student, teacher, raw = features(n=1, c_t=3, c_s=2, height=5, width=4)
    loss = CrossNetAttentionLoss(window=3, learnable=True, normalise=normalise).double()
    inputs = (student.requires_grad_(), raw.requires_grad_(), *loss.parameters())
    assert torch.autograd.gradcheck(lambda s, r, *_: loss(s, teacher, r), inputs)


@pytest.mark.parametrize("branch", BRANCHES)
def test_each_branch_has_a_gradient_at_what_it_reads(branch):
    student, teacher, raw = (x.requires_grad_(i != 1) for i, x in enumerate(features(dtype=torch.float32)))
    only(branch)(student, teacher, raw).backward()
    read, other = (raw, student) if branch == "channel" else (student, raw)
    assert torch.isfinite(read.grad).all() and (read.grad.abs().amax((0, 2, 3)) > 0).all()
    assert other.grad is None


def test_a_large_feature_is_compared_in_one_square_that_moves():
    student, teacher, raw = features(height=20, width=18, dtype=torch.float32)
    loss = CrossNetAttentionLoss(crop=8)
    values = {loss(student, teacher, raw).item() for _ in range(8)}
    squares = {
        CrossNetAttentionLoss(crop=None)(*(x[..., top : top + 8, left : left + 8] for x in (student, teacher, raw))).item()
        for top in range(13)
        for left in range(11)
    }
    assert len(values) > 1
    assert all(min(abs(value - square) for square in squares) < 1e-5 for value in values)
    assert CrossNetAttentionLoss(crop=20)(student, teacher, raw) == CrossNetAttentionLoss(crop=None)(student, teacher, raw)


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_bf16_features_are_compared_in_float32(autocast):
    student, teacher, raw = features(height=20, width=18, dtype=torch.float32)
    expected = CrossNetAttentionLoss(crop=None)(student, teacher, raw)
    halves = [x.bfloat16() for x in (student, teacher, raw)]
    halves[0].requires_grad_(), halves[2].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = CrossNetAttentionLoss(crop=None)(*halves)
        assert torch.equal(CrossNetAttentionLoss(crop=None)(student, teacher, raw), expected)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0)
    loss.backward()
    for x in (halves[0], halves[2]):
        assert x.grad.dtype == torch.bfloat16 and torch.isfinite(x.grad).all() and x.grad.any()


def test_float64_stays_float64():
    assert CrossNetAttentionLoss()(*features()).dtype == torch.float64


@pytest.mark.parametrize("which", ["student", "raw", "teacher", "all"])
@pytest.mark.parametrize("value", [0.0, 5.0, 1e-6, 1e4])
def test_constant_and_dead_features_are_finite(which, value):
    student, teacher, raw = features(dtype=torch.float32)
    student, teacher, raw = (
        torch.full_like(x, value) if which in (name, "all") else x
        for name, x in (("student", student), ("teacher", teacher), ("raw", raw))
    )
    student, raw = student.requires_grad_(), raw.requires_grad_()
    loss = CrossNetAttentionLoss(learnable=True)
    value = loss(student, teacher, raw)
    value.backward()
    for x in (value, student.grad, raw.grad, *(p.grad for p in loss.parameters())):
        assert torch.isfinite(x).all() and x.abs().max() < 1e3


# ------------------------------------------------------------------------------------------------ memory


class LargestTensor(TorchDispatchMode):
    """Keeps the largest number of elements of any tensor that an operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


@pytest.mark.parametrize("size", [(64, 64), (50, 67)], ids=str)
@pytest.mark.parametrize("window", [16, None])
def test_no_tensor_is_larger_than_a_few_features(size, window):
    student, teacher, raw = features(1, 8, 4, *size, dtype=torch.float32)
    with LargestTensor() as recorder:
        CrossNetAttentionLoss(window=window)(student.requires_grad_(), teacher, raw.requires_grad_()).backward()
    assert teacher.numel() <= recorder.largest <= 2 * teacher.numel()
    with LargestTensor() as recorder:  # the recorder does see such a matrix
        plain_spatial(teacher, student, student, 1.0).sum().backward()
    assert recorder.largest == (size[0] * size[1]) ** 2


# ------------------------------------------------------------------------------------------------ pictures


def test_the_picture_shows_which_student_channel_answers_which_teacher_channel():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(2, 6, 16, 16, generator=generator)
    kept = [4, 1, 3]
    loss = CrossNetAttentionLoss()
    assert loss.pictures() == {}
    loss(teacher * 0.5, teacher, teacher[:, kept].requires_grad_())
    (name, picture), *others = loss.pictures().items()
    assert not others and name == "channel_attention_6x3"
    cell = picture.shape[1] // 6
    assert picture.shape == (1, 6 * cell, 3 * cell) and cell >= 4
    assert picture.min() >= 0 and picture.max() == 1 and not picture.requires_grad
    cells = picture[0].unfold(0, cell, cell).unfold(1, cell, cell)
    assert (cells == cells[..., :1, :1]).all()
    best = cells[kept][..., 0, 0].argmax(1)
    assert best.tolist() == [0, 1, 2]  # teacher channel kept[i] is answered by student channel i


def test_a_picture_for_each_pair_of_channel_numbers_small_and_of_the_last_call():
    loss = CrossNetAttentionLoss()
    for seed, (c_t, c_s) in enumerate([(6, 4), (128, 64), (6, 4)]):
        loss(*features(c_t=c_t, c_s=c_s, seed=seed, dtype=torch.float32))
    pictures = loss.pictures()
    assert list(pictures) == ["channel_attention_6x4", "channel_attention_128x64"]
    assert pictures["channel_attention_128x64"].shape == (1, 512, 256)
    last = CrossNetAttentionLoss()
    last(*features(c_t=6, c_s=4, seed=2, dtype=torch.float32))
    assert torch.equal(pictures["channel_attention_6x4"], last.pictures()["channel_attention_6x4"])
    assert not loss.state_dict()


@pytest.mark.parametrize("branch", ["direct", "spatial"])
def test_a_branch_that_is_left_out_is_not_computed(branch, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed")

    left_out = {"direct": ("channel", "spatial"), "spatial": ("channel",)}[branch]
    for name in left_out:
        monkeypatch.setattr(f"kd_plugins.losses.cross_net_loss.{name}_attention", refuse)
    loss = only(branch)
    loss(*features())
    assert loss.pictures() == {}


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, "sigma: 0, expected a number above 0"),
        ({"sigma": math.inf}, "sigma: inf"),
        ({"channel_lambda": -1.0}, "channel_lambda: -1.0"),
        ({"spatial_lambda": 0.0}, "spatial_lambda: 0.0"),
        ({"window": 0}, "window: 0, expected a whole number of at least 1"),
        ({"window": 8.5}, "window: 8.5"),
        ({"alpha1": -0.1}, "alpha1: -0.1, expected a number of at least 0"),
        ({"channel_weight": math.nan}, "channel_weight: nan"),
        ({"direct_weight": 0, "alpha1": 0}, "every weight is 0"),
    ],
    ids=str,
)
def test_wrong_arguments_are_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=f"CrossNetAttentionLoss: {message}"):
        CrossNetAttentionLoss(**arguments)


def test_features_that_do_not_fit_are_refused():
    student, teacher, raw = features()
    with pytest.raises(ValueError, match=r"\(2, 5, 9, 7\), the teacher's \(2, 6, 9, 7\)"):
        CrossNetAttentionLoss()(student[:, :5], teacher, raw)
    for wrong in (raw[:1], raw[0]):
        with pytest.raises(ValueError, match=r"CrossNetAttentionLoss: raw is .*expected \(N, C_S, h, w\)"):
            CrossNetAttentionLoss()(student, teacher, wrong)
