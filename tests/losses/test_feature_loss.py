"""The baseline losses between features are what their papers publish, and stay finite where those would not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_vgg import save_vgg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kd_plugins.losses import (
    AttentionTransferFeatureLoss,
    ChannelWiseKLLoss,
    ContrastiveImageLoss,
    FitNetFeatureLoss,
    SpatialAffinityFeatureLoss,
    SpatialKLLoss,
)

RELATIONS = [AttentionTransferFeatureLoss, SpatialAffinityFeatureLoss]
every_loss = pytest.mark.parametrize("loss", [FitNetFeatureLoss, ChannelWiseKLLoss, *RELATIONS], ids=lambda loss: loss.__name__)
every_relation = pytest.mark.parametrize("loss", RELATIONS, ids=lambda loss: loss.__name__)


def features(n=2, c_t=6, c_s=4, size=(9, 7), dtype=torch.float64):
    """S', T and S."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, n, c_t, *size, generator=generator, dtype=dtype)
    return student, teacher, torch.randn(n, c_s, *size, generator=generator, dtype=dtype)


def exact(value, expected):
    assert value.item() == pytest.approx(float(expected), rel=1e-10)


# ------------------------------------------------------------------------------------------------ FitNet


def test_fitnet_is_the_papers_half_sum_of_squares_over_its_size():
    student, teacher, _ = features()
    paper = 0.5 * ((student - teacher).numpy() ** 2).sum((1, 2, 3)).mean()
    exact(FitNetFeatureLoss()(student, teacher) * (6 * 9 * 7) / 2, paper)


def test_fitnet_sums_bf16_features_in_float32():
    student, teacher, _ = features(size=(32, 32), dtype=torch.float32)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    loss = FitNetFeatureLoss()(student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(((student.double() - teacher.double()) ** 2).mean().item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------ channel-wise KL


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_channel_wise_kl_is_the_papers_formula(tau):
    student, teacher, _ = features()
    p_s, p_t = (np.exp(x.numpy().reshape(2, 6, -1) / tau) for x in (student, teacher))
    p_s, p_t = (p / p.sum(-1, keepdims=True) for p in (p_s, p_t))
    per_sample = tau**2 / 6 * (p_t * np.log(p_t / p_s)).sum((1, 2))  # equation 4, C = 6
    exact(ChannelWiseKLLoss(tau=tau)(student, teacher), per_sample.mean())


def test_channel_wise_kl_differs_from_the_image_term_of_slkd_by_the_temperature_only():
    student, teacher, _ = features()
    exact(ChannelWiseKLLoss(tau=3.0)(student, teacher), 9 * SpatialKLLoss(tau=3.0)(student, teacher))


def test_channel_wise_kl_is_half_the_variance_of_small_differences_whatever_the_temperature():
    _, teacher, _ = features(size=(16, 16))
    flat = torch.zeros_like(teacher)
    noise = 1e-3 * teacher
    half = noise.flatten(2).var(-1, unbiased=False).mean() / 2
    for tau in (0.5, 4.0):
        assert ChannelWiseKLLoss(tau=tau)(flat + noise + 5.0, flat).item() == pytest.approx(half.item(), rel=1e-2)


@pytest.mark.parametrize("tau", [0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(tau):
    with pytest.raises(ValueError, match="ChannelWiseKLLoss: tau: .*, expected a number above 0"):
        ChannelWiseKLLoss(tau=tau)


# ------------------------------------------------------------------------------------------------ attention transfer


def test_attention_transfer_is_the_squared_distance_of_normalised_maps():
    student, teacher, raw = features()
    q_s, q_t = ((x.numpy() ** 2).sum(1).reshape(2, -1) for x in (raw, teacher))
    unit_s, unit_t = (q / np.sqrt((q**2).sum(1, keepdims=True)) for q in (q_s, q_t))
    exact(AttentionTransferFeatureLoss()(student, teacher, raw=raw), ((unit_s - unit_t) ** 2).sum(1).mean())
    # the form of the authors' code: the mean over positions too
    code = (F.normalize(raw.square().mean(1).flatten(1)) - F.normalize(teacher.square().mean(1).flatten(1))).square().mean()
    exact(AttentionTransferFeatureLoss()(student, teacher, raw=raw) / (9 * 7), code)


def test_attention_transfer_by_hand():
    # two positions: maps (9 + 16, 0) and (1, 1), unit (1, 0) and (1, 1) / sqrt(2)
    student = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).double().view(1, 2, 1, 2)
    exact(AttentionTransferFeatureLoss()(student, torch.ones(1, 2, 1, 2).double()), 2 - math.sqrt(2))


def test_attention_transfer_does_not_shrink_as_maps_grow():
    _, teacher, raw = features()
    once = AttentionTransferFeatureLoss()(teacher, teacher, raw=raw)
    four = [x.repeat(1, 1, 2, 2) for x in (teacher, raw)]
    exact(AttentionTransferFeatureLoss()(four[0], four[0], raw=four[1]), once)


# ------------------------------------------------------------------------------------------------ FAKD


def plain_affinity(x):
    flat = x.numpy().reshape(*x.shape[:2], -1)
    unit = flat / np.sqrt((flat**2).sum(1, keepdims=True))
    return np.einsum("nci,ncj->nij", unit, unit)


@pytest.mark.parametrize("size", [None, 9, 32])
def test_spatial_affinity_is_the_papers_formula_where_nothing_is_pooled(size):
    student, teacher, raw = features()
    expected = np.abs(plain_affinity(raw) - plain_affinity(teacher)).mean()
    exact(SpatialAffinityFeatureLoss(size=size)(student, teacher, raw=raw), expected)


def test_spatial_affinity_of_a_large_feature_is_that_of_its_averages():
    student, teacher, raw = features(size=(12, 8))
    pooled = [F.avg_pool2d(x, (3, 2)) for x in (raw, teacher)]
    expected = np.abs(plain_affinity(pooled[0]) - plain_affinity(pooled[1])).mean()
    exact(SpatialAffinityFeatureLoss(size=4)(student, teacher, raw=raw), expected)


def test_spatial_affinity_by_hand():
    # two positions, orthogonal for the student, equal for the teacher: two of four entries differ, by 1
    student = torch.tensor([[1.0, 0.0], [0.0, 5.0]]).double().view(1, 2, 1, 2)
    exact(SpatialAffinityFeatureLoss()(student, torch.ones(1, 2, 1, 2).double()), 0.5)


class Largest(TorchDispatchMode):
    """The largest tensor that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


def test_spatial_affinity_of_a_large_feature_never_holds_its_affinity():
    student, teacher, raw = features(n=1, c_t=2, c_s=2, size=(64, 64), dtype=torch.float32)
    with Largest() as largest:
        SpatialAffinityFeatureLoss(size=8)(student, teacher, raw=raw.requires_grad_()).backward()
    assert largest.numbers == 2 * 64**2  # the feature itself; its affinity has 16.8 million entries


@pytest.mark.parametrize("size", [0, 1, -4, 2.5])
def test_a_size_without_affinities_is_refused(size):
    with pytest.raises(ValueError, match=f"SpatialAffinityFeatureLoss: size: {size}, expected a whole number of at least 2"):
        SpatialAffinityFeatureLoss(size=size)


# ------------------------------------------------------------------------------------------------ both relations


@every_relation
def test_relations_compare_the_feature_before_the_conversion(loss):
    student, teacher, raw = features()
    assert torch.equal(loss()(student, teacher, raw=raw), loss()(torch.zeros_like(student), teacher, raw=raw))
    assert torch.equal(loss()(student, teacher), loss()(teacher, teacher, raw=student))


@every_relation
def test_relations_ignore_scale_and_repeated_channels(loss):
    student, teacher, raw = features()
    torch.testing.assert_close(
        loss()(student, teacher, raw=1e3 * raw.repeat(1, 3, 1, 1)), loss()(student, teacher, raw=raw), rtol=1e-10, atol=0
    )


@every_relation
@pytest.mark.parametrize("size", [(18, 14), (3, 5), (4, 20)], ids=str)
def test_features_of_other_sizes_are_averaged_to_the_smaller(loss, size):
    _, teacher, _ = features()
    same = F.interpolate(teacher, size, mode="nearest")  # whole multiples say the same
    value = loss()(teacher, teacher, raw=same.requires_grad_())
    if size == (18, 14):
        assert value.item() == pytest.approx(0, abs=1e-12)
    else:
        value.backward()
        assert value > 0 and same.grad.isfinite().all() and same.grad.any()


@every_relation
@pytest.mark.parametrize("raw", [(3, 4, 9, 7), (4, 9, 7), (1, 4, 9, 7)], ids=str)
def test_a_raw_feature_that_does_not_fit_is_refused(loss, raw):
    student, teacher, _ = features()
    with pytest.raises(ValueError, match=rf"{loss.__name__}: raw is \({raw[0]}, .*expected \(N, C_S, h, w\)"):
        loss()(student, teacher, raw=torch.rand(raw))


@every_relation
def test_silent_positions_do_not_amplify_the_gradient(loss):
    """A position a millionth as large as the others has the direction of noise."""
    student, teacher, raw = features()
    raw[:, :, :4] *= 1e-6
    raw.requires_grad_()
    loss()(student, teacher, raw=raw).backward()
    assert raw.grad[:, :, :4].abs().max() < 100 * raw.grad[:, :, 4:].abs().max()


# ------------------------------------------------------------------------------------------------ all of them


@every_loss
def test_gradient_is_right_in_float64(loss):
    student, teacher, _ = features(n=1, c_t=2, size=(3, 4))
    assert torch.autograd.gradcheck(lambda x: loss()(x, teacher), (student.requires_grad_(),))


@every_loss
def test_bf16_features_are_compared_in_float32(loss):
    student, teacher, _ = (x.bfloat16() for x in features())
    expected = loss()(student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16):
        value = loss()(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 4, 8, 8), (2, 4, 8, 1), (2, 4, 4, 4)], ids=str)
def test_features_of_different_shapes_are_refused(loss, shape):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: .*\(2, 4, 8, 8\)"):
        loss()(torch.rand(2, 4, 8, 8), torch.rand(shape))


# ------------------------------------------------------------------------------------------------ CSD


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    return save_vgg(tmp_path_factory.mktemp("vgg") / "vgg19.pth")


def released_csd(vgg, student, teacher, negatives):
    """The formula of the authors' code: every image of the batch is pushed from every negative, their distances added up."""
    total = torch.zeros((), dtype=torch.float64)
    levels = zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), *(vgg(x) for x in (student, teacher, negatives)), strict=True)
    for weight, s, t, n in levels:
        s, t, n = s.double(), t.double(), n.double()
        near = (t - s).abs().mean()
        far = sum((other - s).abs() for other in n).mean()
        total += weight * near / (far + 1e-7)
    return total


def csd_images(batch):
    generator = torch.Generator().manual_seed(5)
    student, teacher, lq = torch.rand(3, batch, 3, 16, 16, generator=generator)
    return student, teacher, lq


def test_csd_is_the_contrastive_loss_in_vggs_space(vgg_file):
    """One image: nothing to average, the two are one formula. A batch of copies: as many times the sum as there are negatives."""
    loss = ContrastiveImageLoss(extractor={"type": "VGGExtractor", "weights": vgg_file}, negatives=["own"], eps=1e-7)
    assert loss.extractor.levels == [f"relu{i}_1" for i in range(1, 6)]
    student, teacher, lq = csd_images(1)
    assert loss(student, teacher, lq).item() == pytest.approx(released_csd(loss.extractor, student, teacher, lq).item(), rel=1e-5)
    both = ContrastiveImageLoss(extractor={"type": "VGGExtractor", "weights": vgg_file}, eps=1e-7, loss_weight=1 / 3)
    student, teacher, lq = (x.expand(3, -1, -1, -1) for x in (student, teacher, lq))
    assert both(student, teacher, lq).item() == pytest.approx(released_csd(loss.extractor, student, teacher, lq).item(), rel=1e-4)


def test_csd_of_a_batch_differs_by_taking_the_ratio_for_each_image(vgg_file):
    loss = ContrastiveImageLoss(extractor={"type": "VGGExtractor", "weights": vgg_file}, eps=1e-7, loss_weight=1 / 3)
    student, teacher, lq = csd_images(3)
    one_by_one = torch.stack([released_csd(loss.extractor, s[None], t[None], lq) for s, t in zip(student, teacher, strict=True)])
    assert loss(student, teacher, lq).item() == pytest.approx(one_by_one.mean().item(), rel=1e-4)
