import pytest
import torch
import torch.nn.functional as F

from kd_plugins.extractors import BrisqueExtractor, PiqeExtractor, nss

EXTRACTORS = [BrisqueExtractor(), PiqeExtractor()]
FEATURES = {
    "random": lambda: torch.randn(2, 4, 16, 16),
    "some dead channels": lambda: torch.cat((torch.randn(2, 2, 16, 16), torch.zeros(2, 2, 16, 16)), 1),
    "all dead": lambda: torch.zeros(2, 4, 16, 16),
    "constant": lambda: torch.full((2, 4, 16, 16), 3.0),
    "bf16": lambda: torch.randn(2, 3, 12, 12).bfloat16(),
    "odd": lambda: torch.randn(2, 3, 17, 9),
    "2 x 3": lambda: torch.randn(2, 3, 2, 3),
    "1 x 1": lambda: torch.randn(2, 3, 1, 1),
    "channels last": lambda: torch.randn(2, 4, 16, 16).contiguous(memory_format=torch.channels_last),
}


def distance(extractor, student, teacher, stride=1):
    with torch.no_grad():
        target = extractor(teacher, stride=stride)
    pred = extractor(student, reference=target, stride=stride)
    return sum(F.l1_loss(value, target[key]) for key, value in pred.items())


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", FEATURES)
def test_zero_where_equal_and_finite_where_not(extractor, name):
    torch.manual_seed(0)
    teacher = FEATURES[name]()
    assert distance(extractor, teacher.clone(), teacher).item() == 0
    student = (teacher + 0.1 * torch.randn_like(teacher)).requires_grad_()
    loss = distance(extractor, student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    if not (name == "1 x 1" and isinstance(extractor, PiqeExtractor)):  # one pixel has neither edge nor texture
        assert loss > 0
        assert student.grad.abs().max() > 0


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)
def test_silent_channel_does_not_amplify_the_gradient(extractor):
    torch.manual_seed(0)
    teacher = torch.cat((torch.randn(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)), 1)
    student = (teacher + 1e-4 * torch.randn_like(teacher)).requires_grad_()
    distance(extractor, student, teacher).backward()
    live, dead = student.grad[:, :3].abs().max(), student.grad[:, 3].abs().max()
    assert dead < 10 * live


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)
def test_channels_last_and_autocast_change_nothing(extractor):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 2, 4, 16, 16)
    plain = distance(extractor, student, teacher)
    other = student.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distance(extractor, other, teacher) == plain


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)
def test_gradient_is_right_in_float64(extractor):
    torch.manual_seed(0)
    target = extractor(torch.randn(1, 2, 7, 6).double())
    student = torch.randn(1, 2, 7, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(extractor(x, target).values()), (student,))


def test_structure_is_that_of_the_dense_products():
    torch.manual_seed(0)
    maps, others = torch.randn(2, 2, 3, 5, 6).double()

    def dense(m):
        p = F.pad(m, (1, 1, 0, 1))
        shifted = (p[..., :-1, 2:], p[..., 1:, :-2], p[..., 1:, 1:-1], p[..., 1:, 2:])
        return torch.stack((m, *(m * s for s in shifted)))

    expected = (dense(maps) - dense(others)).abs().mean((0, 3, 4))
    dense_maps = dense(maps)
    moments = torch.stack((dense_maps, dense_maps.abs(), dense_maps**2, dense_maps.clamp_min(0) ** 2)).mean((-1, -2))
    found = nss.product_statistics(maps, nss.product_statistics(others)[2])
    for value, wanted in zip(found, (moments, expected, dense_maps), strict=True):
        torch.testing.assert_close(value, wanted)


def test_the_gradient_of_moments_and_distance_written_by_hand_is_right():
    torch.manual_seed(0)
    maps, others = torch.randn(2, 2, 3, 5, 4).double()
    reference = nss.product_statistics(others)[2]
    assert torch.autograd.gradcheck(lambda m: nss.product_statistics(m, reference)[:2], (maps.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda m: nss.product_statistics(m)[0], (maps,))


def test_filter_is_the_7x7_gaussian_with_replicated_borders():
    x = torch.randn(1, 1, 9, 12, dtype=torch.float64)
    window = nss.gaussian_window()
    expected = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), (window[:, None] * window).view(1, 1, 7, 7))
    torch.testing.assert_close(nss.gaussian_filter(x), expected)


def test_piqe_block_follows_the_stride():
    x = torch.randn(1, 2, 32, 32)
    extractor = PiqeExtractor()
    assert [extractor(x, stride=s)["texture"].shape[-1] for s in (1, 2, 4, 8, 64)] == [2, 4, 8, 16, 16]


def test_piqe_texture_only_where_the_teacher_is_active():
    torch.manual_seed(0)
    teacher = torch.randn(1, 1, 32, 32)
    teacher[..., :16, :16] = 0
    target = PiqeExtractor()(teacher)
    pred = PiqeExtractor()(torch.randn(1, 1, 32, 32), target)
    assert target["active"][0, 0].tolist() == [[0, 1], [1, 1]]
    assert pred["texture"][0, 0, 0, 0] == 0 and pred["texture"][0, 0, 1, 1] > 0


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)
def test_wrong_input_is_said(extractor):
    with pytest.raises(ValueError, match="N, C, H, W"):
        extractor(torch.randn(3, 8, 8))
    with pytest.raises(ValueError, match="'reference' lacks 'scale'"):
        extractor(torch.randn(1, 3, 8, 8), reference={})
