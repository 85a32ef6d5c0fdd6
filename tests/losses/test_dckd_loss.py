"""DCKD's two losses against plain float64 references, and the encoder's calls."""

import pytest
import torch
from torch import nn

from kd_plugins.extractors import save_tokenizer
from kd_plugins.extractors.sharing import shared_extractor, sharing_extractors
from kd_plugins.extractors.vq_encoder import VQTokenizer
from kd_plugins.losses import CodeDistributionLoss, ContrastRatioLoss
from kd_plugins.losses.encodings import Encodings

LAYOUT = {
    **{"ch": 4, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "attention_levels": [4]},
    **{"z_channels": 8, "embed_dim": 6, "n_embed": 12, "groups": 2},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    torch.manual_seed(0)
    net = VQTokenizer(**LAYOUT)
    nn.init.normal_(net.quantize.embedding.weight, std=0.7)
    file = tmp_path_factory.mktemp("tokenizer") / "tiny.safetensors"
    save_tokenizer(net, file, torch.float32)
    return {"weights": str(file)}


@pytest.fixture
def images():
    """Student, teacher (2, 3, 32, 48) and three negatives, the student's asking for a gradient."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.rand(2, 2, 3, 32, 48, generator=generator)
    return student.requires_grad_(), teacher, torch.rand(3, 2, 3, 32, 48, generator=generator)


def levels_and_z(loss, image, scale, offset):
    """What the extractor's network makes of an image in float64, with the range written out."""
    return loss.extractor.net.double()(image.double() * scale + offset)


RANGES = {"paper": (2, -1), "official": (1, 0)}
variants = pytest.mark.parametrize("variant", RANGES)


# ------------------------------------------------------------------------------------------------ values


@variants
def test_the_ratio_is_that_of_a_plain_reference(tokenizer, images, variant):
    student, teacher, negatives = images
    loss = ContrastRatioLoss(loss_weight=0.1, variant=variant, extractor=tokenizer)
    value = loss(student, teacher, negatives)
    value.backward()

    leaf = student.detach().double().requires_grad_()
    mine, theirs, *worse = (levels_and_z(loss, x, *RANGES[variant])[0] for x in (leaf, teacher, *negatives))
    expected = 0.0
    for level, weight in enumerate([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]):
        near = torch.mean(torch.abs(mine[level] - theirs[level]))
        far = torch.mean(torch.abs(mine[level] - torch.stack([n[level] for n in worse])).sum(0))
        expected = expected + 0.1 * weight * near / (far + 1e-7)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(student.grad.double(), leaf.grad, rtol=1e-3, atol=1e-8)


@variants
def test_the_cross_entropy_is_that_of_a_plain_reference(tokenizer, images, variant):
    student, teacher, _ = images
    loss = CodeDistributionLoss(loss_weight=0.001, variant=variant, extractor=tokenizer)
    value = loss(student, teacher)
    value.backward()

    leaf = student.detach().double().requires_grad_()
    codes = loss.extractor.codebook.double()
    distributions = []
    for image in (leaf, teacher):
        z = levels_and_z(loss, image, *RANGES[variant])[1]
        rows = z.permute(0, 2, 3, 1).reshape(-1, 6)
        d = torch.stack([((row - codes) ** 2).sum(1) for row in rows])
        distributions.append(torch.exp(d.max(1, keepdim=True).values - d))
        distributions[-1] = distributions[-1] / distributions[-1].sum(1, keepdim=True)
    mine, theirs = distributions
    if variant == "official":
        mine = torch.exp(mine) / torch.exp(mine).sum(1, keepdim=True)
    expected = -0.001 * (theirs * torch.log(mine)).sum(1).mean()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(student.grad.double(), leaf.grad, rtol=1e-3, atol=1e-9)


def test_a_ratio_by_hand():
    """A space that is the image: near 0.1, far 0.2 + 0.4."""

    class Space(nn.Module):
        def forward(self, image):
            return [image]

    class OneLevel(ContrastRatioLoss):
        def __init__(self):
            nn.Module.__init__(self)
            self.loss_weight, self.weights, self.eps, self.extractor = 0.1, (3.0,), 1e-7, Space()

    student = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    value = OneLevel()(student, student + 0.1, torch.stack((student - 0.2, student + 0.4)))
    assert value.item() == pytest.approx(0.1 * 3 * 0.1 / (0.6 + 1e-7), rel=1e-9)


def test_the_student_that_is_the_teacher_has_the_teachers_entropy_and_no_gradient(tokenizer, images):
    _, teacher, negatives = images
    leaf = teacher.clone().requires_grad_()
    loss = CodeDistributionLoss(extractor=tokenizer)
    value = loss(leaf, teacher)
    value.backward()
    assert 0 < value < torch.log(torch.tensor(12.0)) and leaf.grad.abs().max() < 1e-7
    assert ContrastRatioLoss(extractor=tokenizer)(leaf, teacher, negatives) == 0


def test_a_second_softmax_leaves_less_gradient(tokenizer, images):
    student, teacher, _ = images
    sizes = {}
    for variant in RANGES:
        loss = CodeDistributionLoss(variant=variant, extractor={**tokenizer, "range": "symmetric"})
        (gradient,) = torch.autograd.grad(loss(student, teacher), student)
        sizes[variant] = gradient.norm()
    assert 0 < sizes["official"] < 0.5 * sizes["paper"]


def test_under_bf16_autocast_the_values_stay_float32(tokenizer, images):
    student, teacher, negatives = images
    dcl, ce = ContrastRatioLoss(extractor=tokenizer), CodeDistributionLoss(extractor=tokenizer)
    exact = dcl(student, teacher, negatives).item(), ce(student, teacher).item()
    with torch.autocast("cpu", torch.bfloat16):
        values = dcl(student, teacher, negatives), ce(student, teacher)
    assert all(value.dtype == torch.float32 for value in values)
    assert [value.item() for value in values] == pytest.approx(exact, rel=0.03)


# ------------------------------------------------------------------------------------------------ calls of the encoder


def count(extractor, part="conv_in"):
    batches = []
    layer = getattr(extractor.net.encoder, part)
    layer.register_forward_hook(lambda module, args, out: batches.append((len(args[0]), out.requires_grad)))
    return batches


def test_equal_blocks_share_an_extractor_only_where_it_is_said(tokenizer):
    block = {"type": "TokenizerExtractor", **tokenizer}
    assert shared_extractor(block) is not shared_extractor(block)
    with sharing_extractors():
        first = shared_extractor(block)
        assert shared_extractor(dict(block)) is first
        assert shared_extractor({**block, "range": "unit"}) is not first
    assert shared_extractor(block) is not first


def test_two_losses_share_one_pass_over_the_student_and_one_over_all_else(tokenizer, images):
    student, teacher, negatives = images
    with sharing_extractors():
        dcl, ce = ContrastRatioLoss(extractor=tokenizer), CodeDistributionLoss(extractor=tokenizer)
    apart = dcl(student, teacher, negatives).item(), ce(student, teacher).item()
    batches, behind_the_levels = count(dcl.extractor), count(dcl.extractor, "mid")
    encodings = Encodings(student, teacher, negatives, [dcl, ce])
    together = dcl(student, teacher, negatives, encodings), ce(student, teacher, encodings)
    assert batches == [(2 + 3 * 2, False), (2, True)]
    assert behind_the_levels == [(2, False), (2, True)]  # the codes of the negatives are read by nobody
    assert [value.item() for value in together] == pytest.approx(apart, rel=1e-5)
    sum(together).backward()
    assert student.grad.isfinite().all() and student.grad.any()


def test_losses_with_different_extractors_each_have_their_own_pass(tokenizer, images):
    student, teacher, negatives = images
    with sharing_extractors():
        dcl, ce = ContrastRatioLoss(extractor=tokenizer), CodeDistributionLoss(variant="official", extractor=tokenizer)
    batches = [count(loss.extractor) for loss in (dcl, ce)]
    encodings = Encodings(student, teacher, negatives, [dcl, ce])
    dcl(student, teacher, negatives, encodings), ce(student, teacher, encodings)
    assert batches == [[(8, False), (2, True)], [(2, False), (2, True)]]


def test_only_what_is_read_is_computed(tokenizer, images):
    student, teacher, negatives = images
    dcl = ContrastRatioLoss(extractor=tokenizer)
    encoding = Encodings(student, teacher, negatives, [dcl])(dcl.extractor)
    assert encoding.student.z is None and len(encoding.negatives) == 5
    ce = CodeDistributionLoss(extractor=tokenizer)
    encoding = Encodings(student, teacher, None, [ce])(ce.extractor)
    assert encoding.negatives == [] and encoding.student.z.shape == (2, 6, 2, 3)


# ------------------------------------------------------------------------------------------------ options


def test_the_variant_says_the_range_unless_the_extractor_does(tokenizer):
    for loss in (ContrastRatioLoss, CodeDistributionLoss):
        assert loss(extractor=tokenizer).extractor.range == "symmetric"
        assert loss(variant="official", extractor=tokenizer).extractor.range == "unit"
        assert loss(variant="official", extractor={**tokenizer, "range": "symmetric"}).extractor.range == "symmetric"


def test_other_levels_take_the_last_weights_or_those_given(tokenizer, images):
    student, teacher, negatives = images
    loss = ContrastRatioLoss(extractor=tokenizer, weights=[1, 1, 1])
    with pytest.raises(ValueError, match=r"has 5 levels, but weights=\[1, 1, 1\]"):
        loss(student, teacher, negatives)


def test_wrong_arguments_are_named(tokenizer, images):
    student, teacher, negatives = images
    with pytest.raises(ValueError, match="variant: 'oficial'.*nearest: official"):
        ContrastRatioLoss(variant="oficial", extractor=tokenizer)
    with pytest.raises(ValueError, match="eps: 0"):
        ContrastRatioLoss(eps=0, extractor=tokenizer)
    with pytest.raises(ValueError, match="TeacherExtractor has no codebook, expected TokenizerExtractor"):
        CodeDistributionLoss(extractor={"type": "TeacherExtractor"})
    loss = ContrastRatioLoss(extractor=tokenizer)
    with pytest.raises(ValueError, match=r"negatives: they are \(3, 2, 3, 32, 16\), expected one or more like .*\(2, 3, 32, 48\)"):
        loss(student, teacher, negatives[..., :16])
    with pytest.raises(ValueError, match="the same shape"):
        loss(student, teacher[..., :16], negatives)
