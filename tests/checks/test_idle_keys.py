"""A key that does nothing is a warning, unless its partner is there and turned off."""

import pytest
from option_texts import GOOD

GAN = "it has no effect without `train: gan_opt`"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("network_d={type: UNetDiscriminatorSN, num_in_ch: 3}", GAN),
        ("train:optim_d={type: Adam, lr: 1}", GAN),
        ("train:net_d_iters=2", GAN),
        ("train:net_d_init_iters=2", GAN),
        ("path:pretrain_network_d=a.yml", GAN),
        ("train:transforms={hflip: 1}", "it has no effect without a term of `view: transformed`"),
        ("teacher_clean={checkpoint: restormer_derain}", "it has no effect without a term of `view: clean`"),
        ("val:tile_overlap=8", "it has no effect without `val: tile`"),
        ("val:tile_pad=8", "it has no effect without `val: tile`"),
        ("val:crop_size_h=64", "it has no effect without `val: grids`"),
    ],
)
def test_a_key_without_its_partner_is_a_warning(check, entry, said):
    fine, warning = check(GOOD, entry, "train:distill:et:view=degraded", code=0)
    key, _, value = entry.partition("=")
    assert f"{key}: " in warning and said in warning and "(a warning)" in warning


@pytest.mark.parametrize("entries", [["val:tile=0", "val:tile_overlap=8"], ["val:grids=false", "val:crop_size_h=64"]], ids=str)
def test_a_partner_that_is_turned_off_is_meant_to_be(check, entries):
    assert check(GOOD, *entries, code=0) == ["a.yml: fine, for `basicsr train`"]
