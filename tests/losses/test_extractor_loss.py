"""ExtractorLoss: an extractor by name and arguments, called on the teacher first."""

import pytest
import torch
from torch import nn

from kd_plugins.extractors import EXTRACTOR_REGISTRY, BrisqueExtractor, PiqeExtractor
from kd_plugins.losses import BrisqueFeatureLoss, ExtractorLoss, PiqeFeatureLoss


class TwoEntries(nn.Module):
    """A user's own extractor: the feature, and twice its mean over positions."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor
        self.calls = []

    def forward(self, x, reference=None, stride=1):
        self.calls.append((x, reference, stride))
        entries = {"all": x * 1.0, "mean": self.factor * x.mean((-1, -2))}
        return {**entries, "only the teacher's": x * 1.0} if reference is None else entries


@pytest.fixture
def two_entries(monkeypatch):
    monkeypatch.setitem(EXTRACTOR_REGISTRY._obj_map, "TwoEntries", TwoEntries)


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(2, 2, 3, 8, 8)


def test_it_is_the_mean_over_entries_of_mean_absolute_differences(two_entries, features):
    student, teacher = features
    loss = ExtractorLoss({"type": "TwoEntries", "factor": 10.0})
    dense = (student - teacher).abs().mean()
    means = 10 * (student - teacher).mean((-1, -2)).abs().mean()
    torch.testing.assert_close(loss(student, teacher), (dense + means) / 2)


def test_the_teacher_is_described_first_and_without_gradient(two_entries, features):
    student, teacher = features.clone().requires_grad_()
    loss = ExtractorLoss({"type": "TwoEntries"})
    loss(student, teacher, stride=4)
    (first, none, stride_t), (second, reference, stride_s) = loss.extractor.calls
    assert torch.equal(first, teacher) and torch.equal(second, student) and none is None
    assert (stride_t, stride_s) == (4, 4)
    assert "only the teacher's" in reference and not any(value.requires_grad for value in reference.values())


@pytest.mark.parametrize(("loss", "extractor"), [(BrisqueFeatureLoss, BrisqueExtractor), (PiqeFeatureLoss, PiqeExtractor)])
def test_slkds_losses_are_extractor_losses(loss, extractor, features):
    student, teacher = features
    assert isinstance(loss().extractor, extractor)
    plain = ExtractorLoss({"type": extractor.__name__}, loss_weight=0.5)(student, teacher, stride=2)
    assert torch.equal(loss(loss_weight=0.5)(student, teacher, stride=2), plain) and plain > 0


def test_arguments_reach_the_extractor(features):
    student, teacher = features
    loss = BrisqueFeatureLoss(extractor={"type": "BrisqueExtractor", "scales": 1, "statistics_weight": 0, "colour_weight": 0})
    assert loss.extractor.scales == 1
    description = loss.extractor(student, reference=loss.extractor(teacher))
    torch.testing.assert_close(loss(student, teacher), description["structure1"].mean())


def test_stride_sets_piqes_block():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 2, 32, 32)
    loss = PiqeFeatureLoss()
    assert loss(student, teacher, stride=1) != loss(student, teacher, stride=4)


@pytest.mark.parametrize("loss", [BrisqueFeatureLoss, PiqeFeatureLoss], ids=lambda loss: loss.__name__)
def test_gradient_is_right_in_float64(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 2, 7, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss()(s, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("loss", [BrisqueFeatureLoss, PiqeFeatureLoss], ids=lambda loss: loss.__name__)
def test_bf16_features_are_compared_in_float32(loss):
    torch.manual_seed(0)
    teacher = torch.randn(2, 4, 16, 16)
    student = teacher + 0.3 * torch.randn_like(teacher)
    exact = loss()(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss()(student, teacher), exact)
        half = loss()(student.bfloat16(), teacher.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0)


def test_wrong_extractors_are_one_clear_error():
    with pytest.raises(ValueError, match="extractor:scale: 2, BrisqueExtractor has no such key; nearest: scales"):
        ExtractorLoss({"type": "BrisqueExtractor", "scale": 2})
    with pytest.raises(ValueError, match="extractor:scales: 1, PiqeExtractor has no such key"):
        PiqeFeatureLoss(extractor={"type": "PiqeExtractor", "scales": 1})
    with pytest.raises(ValueError, match="'BrisqeExtractor', no registered extractor; nearest: BrisqueExtractor"):
        ExtractorLoss({"type": "BrisqeExtractor"})
    with pytest.raises(ValueError, match="extractor:type: missing"):
        ExtractorLoss({"scales": 2})
    with pytest.raises(ValueError, match="expected a mapping"):
        ExtractorLoss("BrisqueExtractor")


@pytest.mark.parametrize("loss", [BrisqueFeatureLoss, PiqeFeatureLoss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 4, 8, 8), (2, 4, 8, 1), (2, 4, 4, 4)], ids=str)
def test_features_of_different_shapes_are_refused(loss, shape):
    with pytest.raises(ValueError, match=r"\(2, 4, 8, 8\)"):
        loss()(torch.rand(2, 4, 8, 8), torch.rand(shape))


def test_a_large_feature_is_compared_in_one_window_that_moves(two_entries):
    student, teacher = torch.zeros(1, 1, 64, 48), torch.arange(64.0 * 48).view(1, 1, 64, 48)
    loss = ExtractorLoss({"type": "TwoEntries"}, window=16)
    corners = set()
    for _ in range(8):
        loss.extractor.calls.clear()
        loss(student, teacher + student)
        (seen, *_), (answer, *_) = loss.extractor.calls
        assert seen.shape == answer.shape == (1, 1, 16, 16)
        corners.add(seen[0, 0, 0, 0].item())
    assert len(corners) > 1


def test_student_and_teacher_are_seen_through_the_same_window():
    feature = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    assert BrisqueFeatureLoss(window=8)(feature, feature.clone()) == 0


def test_no_window_compares_the_whole_feature(two_entries):
    loss = ExtractorLoss({"type": "TwoEntries"}, window=None)
    loss(torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40))
    assert loss.extractor.calls[0][0].shape == (1, 1, 40, 40)


def test_a_window_too_small_for_statistics_is_refused():
    with pytest.raises(ValueError, match="window: 4"):
        BrisqueFeatureLoss(window=4)
