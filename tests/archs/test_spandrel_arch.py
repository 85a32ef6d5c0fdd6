"""spandrel's networks: by name, or recognised from weights, and run as spandrel runs them."""

import pytest
import torch

from kd_plugins.archs.adapter import Sizes
from kd_plugins.archs.spandrel_arch import recognise, required_sizes, spandrel_networks


def make(name, **arguments):
    torch.manual_seed(0)
    return spandrel_networks()[name](**arguments)


def test_every_architecture_of_spandrel_has_a_name():
    from spandrel import MAIN_REGISTRY

    names = spandrel_networks()
    assert len(names) >= len(MAIN_REGISTRY) > 40
    assert {"SwinIR", "SCUNet", "DRUNet", "Uformer", "KBNet_s"} <= set(names)
    assert not any(name.endswith("Arch") for name in names)


@pytest.mark.parametrize(
    ("name", "arguments", "sizes"),
    [
        ("DnCNN", {"nc": 4, "nb": 8, "act_mode": "R"}, Sizes()),
        ("DRUNet", {"nc": [4] * 4, "nb": 2}, Sizes(8)),
        ("SAFMN", {"dim": 8, "n_blocks": 1}, Sizes(8)),
        ("Uformer", {"embed_dim": 4, "depths": [1] * 9}, Sizes(128, square=True)),
    ],
)
def test_the_sizes_it_takes_are_spandrels_and_asking_leaves_the_random_numbers_alone(name, arguments, sizes):
    net = make(name, **arguments)
    state = torch.get_rng_state()
    assert required_sizes(net) == sizes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_is_not_spandrels_takes_any_size():
    assert required_sizes(torch.nn.Conv2d(3, 3, 3)) == Sizes()


@pytest.mark.parametrize(
    ("name", "arguments", "output", "noise_level"),
    [
        ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R"}, None, None),
        ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [4] * 4, "nb": 2}, None, 15),
        ("MMRealSR", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}, 0, None),
    ],
)
def test_weights_are_recognised_and_run_as_spandrel_runs_them(name, arguments, output, noise_level):
    net = make(name, **arguments)
    found = recognise(net.state_dict(), "net.pth")
    assert found is not None and type(found.net) is type(net)
    assert (found.output, found.noise_level) == (output, noise_level)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in found.net.state_dict().items())


def test_what_spandrel_does_not_know_is_none():
    assert recognise(torch.nn.Conv2d(3, 3, 3).state_dict(), "net.pth") is None


def test_a_network_with_another_range_of_values_is_refused():
    net = make("MixDehazeNet", embed_dims=[8, 8, 8, 8, 8], depths=[1] * 5)
    with pytest.raises(ValueError, match="spandrel does not run MixDehazeNet as a plain network .*write a class"):
        recognise(net.state_dict(), "net.pth")


def test_what_spandrel_recognises_and_cannot_load_is_one_sentence():
    weights = make("DnCNN", nc=4, nb=8, act_mode="R").state_dict()
    weights["extra.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="checkpoint net.pth: spandrel cannot load what it recognises .*name its `type`"):
        recognise(weights, "net.pth")
