import pytest
from torch import nn

from kd_plugins.extractors import EXTRACTOR_REGISTRY, BrisqueExtractor, PiqeExtractor, build_extractor
from kd_plugins.losses import ContrastiveImageLoss, ContrastRatioLoss, ExtractorLoss


def test_builds_by_name_with_arguments():
    extractor = build_extractor({"type": "PiqeExtractor", "block": 8})
    assert isinstance(extractor, PiqeExtractor) and extractor.block == 8
    assert isinstance(build_extractor({"type": "BrisqueExtractor"}), BrisqueExtractor)


def test_unknown_name_says_the_nearest():
    with pytest.raises(ValueError, match="extractor:type: 'BrisqeExtractor', no registered extractor; nearest: BrisqueExtractor"):
        build_extractor({"type": "BrisqeExtractor"})


def test_missing_type_says_what_is_registered():
    with pytest.raises(ValueError, match="extractor:type: missing.*PiqeExtractor"):
        build_extractor({})


def test_unknown_argument_is_named():
    with pytest.raises(ValueError, match="extractor:scale: 1, BrisqueExtractor has no such key; nearest: scales"):
        build_extractor({"type": "BrisqueExtractor", "scale": 1})


@pytest.mark.parametrize("opt", [{"scales": 3}, {"c": 0}, {"structure_weight": -1}])
def test_brisque_refuses_arguments_out_of_range(opt):
    with pytest.raises(ValueError, match=next(iter(opt))):
        build_extractor({"type": "BrisqueExtractor", **opt})


@pytest.mark.parametrize(
    ("loss", "extractor", "said"),
    [
        (ExtractorLoss, "TeacherExtractor", "describes images, expected one that describes features: BrisqueExtractor"),
        (ContrastiveImageLoss, "PiqeExtractor", "describes features, expected one that describes images: Tok"),
        (ContrastRatioLoss, "PiqeExtractor", "describes features, expected one that describes images: Tok"),
    ],
)
def test_a_loss_of_images_takes_no_extractor_of_features_and_the_other_way_round(loss, extractor, said):
    with pytest.raises(ValueError, match=f"extractor: {extractor} {said}"):
        loss(extractor={"type": extractor})


def test_a_users_own_extractor_needs_no_change_here():
    class UsersOwnExtractor(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.gain = gain

    EXTRACTOR_REGISTRY.register(UsersOwnExtractor)
    assert build_extractor({"type": "UsersOwnExtractor", "gain": 2.0}).gain == 2.0
    with pytest.raises(ValueError, match="extractor:gain: missing"):
        build_extractor({"type": "UsersOwnExtractor"})
