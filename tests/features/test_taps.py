"""Taps return what the layer returned, whatever the network does to it afterwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_plugins.features import FeatureTaps, TapError
from kd_plugins.messages import nearest


class Overwriting(nn.Module):
    """A convolution whose output the network then overwrites, in one of several ways."""

    def __init__(self, how):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.how = how

    def forward(self, x):
        x = self.conv(x)
        if self.how == "module":
            x = self.relu(x)
        elif self.how == "functional":
            x = F.relu(x, inplace=True)
        elif self.how == "add":
            x += 1
        elif self.how == "view":
            x.flatten(2)[:, 0] = 0
        return x


def heard(taps, net, x):
    """A pass that taps hear."""
    with taps:
        return net(x)


@pytest.mark.parametrize("gradient", [True, False], ids=["with gradient", "without"])
@pytest.mark.parametrize("how", ["module", "functional", "add", "view", "nothing"])
def test_features_are_what_the_layer_returned(how, gradient):
    net = Overwriting(how)
    taps = FeatureTaps(net, ["conv"])
    for _ in range(3):  # the first pass clones, the later ones only where the first saw a need
        x = torch.randn(2, 3, 6, 5)
        expected = F.conv2d(x, net.conv.weight, net.conv.bias, padding=1)
        assert (expected < 0).any() and (expected > 0).any()
        with torch.set_grad_enabled(gradient):
            heard(taps, net, x)
        torch.testing.assert_close(taps.collect()["conv"], expected)


@pytest.mark.parametrize("how", ["module", "functional", "add", "nothing"])
def test_taps_do_not_change_the_output(how):
    net, x = Overwriting(how), torch.randn(1, 3, 6, 6)
    expected = net(x)
    taps = FeatureTaps(net, ["conv", "relu"] if how == "module" else ["conv"])
    assert torch.equal(heard(taps, net, x), expected)
    taps.collect()
    assert torch.equal(net(x), expected)


@pytest.mark.parametrize("how", ["module", "functional", "nothing"])
def test_gradient_flows_through_the_feature(how):
    net = Overwriting(how)
    taps = FeatureTaps(net, ["conv"])
    for _ in range(2):
        net.zero_grad()
        x = torch.randn(1, 3, 6, 6)
        heard(taps, net, x)
        taps.collect()["conv"].sum().backward()
        torch.testing.assert_close(net.conv.bias.grad, torch.full((4,), 36.0))


def test_a_feature_that_nothing_overwrites_is_not_copied_after_the_first_pass():
    net = Overwriting("nothing")
    taps = FeatureTaps(net, ["conv"])
    heard(taps, net, torch.rand(1, 3, 4, 4))
    taps.collect()
    output = heard(taps, net, torch.rand(1, 3, 4, 4))
    assert taps.collect()["conv"].data_ptr() == output.data_ptr()


def test_a_layer_overwritten_only_later_is_not_returned_overwritten():
    net = Overwriting("nothing")
    taps = FeatureTaps(net, ["conv"])
    heard(taps, net, torch.rand(1, 3, 4, 4))
    taps.collect()  # nothing overwrote it: no more copies
    net.how = "add"
    with pytest.raises(TapError, match="'conv'.*overwrit"):
        heard(taps, net, torch.rand(1, 3, 4, 4))
        taps.collect()
    x = torch.rand(1, 3, 4, 4)
    heard(taps, net, x)  # from now on it is copied again
    torch.testing.assert_close(taps.collect()["conv"], F.conv2d(x, net.conv.weight, net.conv.bias, padding=1))


def test_inplace_modules_are_left_alone_without_taps():
    net = Overwriting("module")
    FeatureTaps(net, [])
    assert net.relu.inplace
    FeatureTaps(net, ["conv"])
    assert not net.relu.inplace


def test_nested_and_repeated_names():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), nn.Conv2d(2, 3, 1))
    taps = FeatureTaps(net, ["0.0", "1", "0.0"])
    x = torch.rand(1, 3, 4, 4)
    output = heard(taps, net, x)
    features = taps.collect()
    assert sorted(features) == ["0.0", "1"]
    assert torch.equal(features["1"], output)
    assert torch.equal(features["0.0"], net[0][0](x))


def test_a_wrong_name_lists_the_nearest():
    net = nn.ModuleDict({"encoder_level1": nn.ReLU(), "encoder_level2": nn.ReLU(), "output": nn.ReLU()})
    with pytest.raises(KeyError, match=r"ModuleDict has no layer 'encoder_levl1'; nearest: encoder_level1, encoder_level2"):
        FeatureTaps(net, ["encoder_levl1"])
    with pytest.raises(KeyError, match="has no layer ''"):
        FeatureTaps(net, [""])


def test_nearest_says_when_nothing_is_near():
    assert nearest("encoder", ["decoder", "qqq"]) == "decoder"
    assert nearest("xyz", ["qqq"]) == "none is near"


def test_collecting_empties_the_taps():
    net = Overwriting("nothing")
    taps = FeatureTaps(net, ["conv"])
    heard(taps, net, torch.rand(1, 3, 4, 4))
    assert list(taps.collect()) == ["conv"]
    with pytest.raises(TapError, match="layer 'conv' did not run"):
        taps.collect()


def test_a_layer_that_does_not_run_is_said():
    net = Overwriting("add")
    taps = FeatureTaps(net, ["conv", "relu"])
    heard(taps, net, torch.rand(1, 3, 4, 4))
    with pytest.raises(TapError, match="layer 'relu' did not run"):
        taps.collect()


def test_a_layer_that_returns_no_tensor_is_said():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    net = nn.Sequential(Two())
    with pytest.raises(TapError, match="layer '0' returns tuple"):
        heard(FeatureTaps(net, ["0"]), net, torch.rand(1))


def test_removed_taps_keep_nothing():
    net = Overwriting("nothing")
    taps = FeatureTaps(net, ["conv"])
    taps.remove()
    heard(taps, net, torch.rand(1, 3, 4, 4))
    with pytest.raises(TapError, match="did not run"):
        taps.collect()


class Recurrent(nn.Module):
    """A convolution that runs several times; after one of them what it returned is overwritten."""

    def __init__(self, times, grows=False):
        super().__init__()
        self.conv, self.times, self.grows = nn.Conv2d(3, 3, 1), times, grows

    def forward(self, x):
        for _ in range(self.times):
            x = self.conv(F.pad(x, [1] * 4) if self.grows else x)
        return x.add_(1)


def test_which_run_of_a_layer_counts_can_be_said():
    net, x = Recurrent(3), torch.rand(2, 3, 4, 4)
    taps = FeatureTaps(net, ["conv@1", "conv@3", "conv@all"])
    for _ in range(3):
        first, second, third = net.conv(x), net.conv(net.conv(x)), net.conv(net.conv(net.conv(x)))
        heard(taps, net, x)
        found = taps.collect()
        torch.testing.assert_close(found["conv@1"], first)
        torch.testing.assert_close(found["conv@3"], third)
        torch.testing.assert_close(found["conv@all"], torch.cat([first, second, third], 1))


def test_a_pass_that_nobody_collected_counts_no_runs():
    net, x = Recurrent(2), torch.rand(1, 3, 4, 4)
    taps = FeatureTaps(net, ["conv@2"])
    heard(taps, net, x)
    heard(taps, net, x + 1)
    net(x + 2)  # not heard
    torch.testing.assert_close(taps.collect()["conv@2"], net.conv(net.conv(x + 1)))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("conv", r"layer 'conv' ran 3 times in the forward pass, expected which run counts: conv@1 is the first, conv@all all"),
        ("conv@4", r"layer 'conv@4' did not run in the forward pass, which had 3 of its runs"),
        ("conv@0", r"layer 'conv@0', expected a run behind the @: conv@1 is the first, conv@all all of them"),
        ("conv@last", r"layer 'conv@last', expected a run behind the @"),
        ("cnv@1", r"no layer 'cnv@1'; nearest: conv"),
    ],
)
def test_a_run_that_is_none_is_said(layer, said):
    net = Recurrent(3)
    with pytest.raises((ValueError, KeyError), match=said):
        taps = FeatureTaps(net, [layer])
        heard(taps, net, torch.rand(1, 3, 4, 4))
        taps.collect()


def test_runs_of_several_sizes_are_no_map():
    net = Recurrent(2, grows=True)
    taps = FeatureTaps(net, ["conv@all"])
    heard(taps, net, torch.rand(1, 3, 4, 4))
    with pytest.raises(TapError, match=r"'conv@all' returns \(1, 3, 6, 6\), \(1, 3, 8, 8\), expected maps of one size"):
        taps.collect()
