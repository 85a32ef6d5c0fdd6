"""Terms with `trust`: where they count, and what their losses see there."""

import pytest
import torch
from made_steps import a_step, given, pairs, raw

from kd_plugins.models.terms import build_terms

CPU = torch.device("cpu")


def terms_of(**blocks):
    return build_terms(blocks, {}, CPU)


def half_trusted(seen, output=None):
    """A step whose teacher is right in the left half of each image, and its mask for windows of one pixel."""
    step = a_step(seen, output=output)
    left = (torch.arange(32) < 16).expand_as(seen.image)
    step.gt = torch.where(left, seen.image, step.output.detach())
    return step, left


def test_a_term_between_images_counts_where_the_teacher_is_nearer_the_truth(seen):
    output = torch.rand(2, 3, 32, 32, requires_grad=True)
    step, left = half_trusted(seen, output)
    term = terms_of(logits={"type": "L1Loss", "trust": {"window": 1}})["logits"]
    assert term.share is None
    value = term(step)
    torch.testing.assert_close(value, (left * (output - seen.image).abs()).mean())
    assert term.share == 0.5
    value.backward()
    assert output.grad[left].all() and not output.grad[~left].any()


def test_a_term_between_features_counts_by_the_same_mask_at_their_size(seen):
    features = [torch.rand(2, 4, side, side, requires_grad=True) for side in (32, 16, 4)]
    layers = ("level1", "level2", "latent")
    blocks = {"fit": {"type": "MSELoss", "between": "encoder", "trust": {"window": 1}}}
    term = build_terms(blocks, {"encoder": pairs(*layers)}, CPU)["fit"]
    step, _ = half_trusted(seen)
    step.convert, step.raw = given({"encoder": features}), raw(*layers)
    value = term(step)
    halves = [feature.shape[-1] // 2 for feature in features]
    expected = [
        (mine[..., :half] - seen.features[layer][..., :half]).square().sum() / mine.numel()
        for mine, layer, half in zip(features, layers, halves, strict=True)
    ]
    torch.testing.assert_close(value, torch.stack(expected).sum())
    value.backward()
    assert all(f.grad[..., :half].any() and not f.grad[..., half:].any() for f, half in zip(features, halves, strict=True))


@pytest.mark.parametrize("loss", ["AttentionTransferFeatureLoss", "SpatialAffinityFeatureLoss", "CrossNetAttentionLoss"])
def test_a_students_own_feature_of_another_width_is_masked_in_its_gradient(seen, loss):
    own = {"my_level2": torch.rand(2, 3, 8, 8, requires_grad=True)}
    block = {"type": loss, "between": "encoder"}
    groups = {"encoder": pairs("level2")}
    step, _ = half_trusted(seen)
    step.raw = own
    reads = loss == "CrossNetAttentionLoss"
    step.convert = given({"encoder": [torch.rand(2, 4, 16, 16)]}) if reads else None
    free, trusted = (build_terms({"t": {**block, **more}}, groups, CPU)["t"] for more in ({}, {"trust": {"window": 1}}))
    values = []
    for term in (free, trusted):
        torch.manual_seed(0)  # the same window
        values.append(term(step))
    if not reads:
        assert values[0] == values[1]
    values[1].backward()
    gradient = own["my_level2"].grad
    assert gradient[..., :4].any() and not gradient[..., 4:].any()


def test_terms_of_one_trust_share_a_mask_and_those_of_another_do_not(seen, monkeypatch):
    from kd_plugins.losses import trust

    made = []
    monkeypatch.setattr(trust.F, "avg_pool2d", lambda x, *a, f=trust.F.avg_pool2d, **k: made.append(a) or f(x, *a, **k))
    block = {"type": "L1Loss", "trust": {"window": 7}}
    terms = terms_of(a=block, b={**block, "type": "MSELoss"}, c={**block, "trust": {"window": 3}}, d={"type": "L1Loss"})
    step, _ = half_trusted(seen)
    for term in terms.values():
        term(step)
    assert made == [(7,), (3,)]
    assert terms["a"].share == terms["b"].share != terms["c"].share and terms["d"].share is None


def test_a_loss_may_ask_for_the_clean_image_and_tell_the_share_that_it_compared(seen):
    term = terms_of(spec={"type": "GatedWaveletLoss"})["spec"]
    step, _ = half_trusted(seen)
    term(step)
    assert 0 < term.share < 1
    both = terms_of(spec={"type": "GatedWaveletLoss", "trust": {}})["spec"]
    both(step)
    assert both.share == step.mask("degraded", both.trust).mean()


@pytest.mark.parametrize("between", ["output", "encoder"])
def test_a_teacher_of_another_scale_is_refused_by_the_terms_name(seen, between):
    step, _ = half_trusted(seen)
    step.output = torch.rand(2, 3, 64, 64)
    term = build_terms({"fit": {"type": "MSELoss", "between": between, "trust": {}}}, {"encoder": pairs("latent")}, CPU)["fit"]
    with pytest.raises(ValueError, match=r"train:distill:fit: the student's image is \(2, 3, 64, 64\), the teacher's \(2, 3, 32"):
        term(step)
