"""Restormer: the published sizes and names, any input size, and its parts against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.archs.restormer_arch import GDFN, MDTA, ChannelLayerNorm

SMALL = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}
# the tensors of one block and their shapes at dim 48, one head: hidden width int(48 * 2.66) = 127
BLOCK = {
    "norm1.body.weight": (48,),
    "norm1.body.bias": (48,),
    "attn.temperature": (1, 1, 1),
    "attn.qkv.weight": (144, 48, 1, 1),
    "attn.qkv_dwconv.weight": (144, 1, 3, 3),
    "attn.project_out.weight": (48, 48, 1, 1),
    "norm2.body.weight": (48,),
    "norm2.body.bias": (48,),
    "ffn.project_in.weight": (254, 48, 1, 1),
    "ffn.dwconv.weight": (254, 1, 3, 3),
    "ffn.project_out.weight": (48, 127, 1, 1),
}
ENDS = {
    "patch_embed.proj.weight": (48, 3, 3, 3),
    "down1_2.body.0.weight": (24, 48, 3, 3),
    "down2_3.body.0.weight": (48, 96, 3, 3),
    "down3_4.body.0.weight": (96, 192, 3, 3),
    "up4_3.body.0.weight": (768, 384, 3, 3),
    "reduce_chan_level3.weight": (192, 384, 1, 1),
    "up3_2.body.0.weight": (384, 192, 3, 3),
    "reduce_chan_level2.weight": (96, 192, 1, 1),
    "up2_1.body.0.weight": (192, 96, 3, 3),
    "output.weight": (3, 96, 3, 3),
}
STAGES = {"encoder_level1": 4, "encoder_level2": 6, "encoder_level3": 6, "latent": 8, "refinement": 4}
STAGES |= {"decoder_level3": 6, "decoder_level2": 6, "decoder_level1": 4}


def on_meta(**arguments):
    with torch.device("meta"):
        return Restormer(**arguments)


def randomised(net):
    """Every parameter off its start, so that none can hide."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Restormer(**SMALL).eval()


# ------------------------------------------------------------------------------------------------ the published network


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_published_parameter_counts():
    assert count(on_meta()) == 26_126_644
    assert count(on_meta(dim=24, num_blocks=[2, 3, 3, 4], num_refinement_blocks=2)) == 3_813_230


def test_published_names_and_shapes():
    net = {name: tuple(value.shape) for name, value in on_meta().state_dict().items()}
    assert {name: net[name] for name in ENDS} == ENDS
    assert {name: net[f"encoder_level1.0.{name}"] for name in BLOCK} == BLOCK
    assert net["latent.7.attn.temperature"] == (8, 1, 1) and net["refinement.3.attn.temperature"] == (1, 1, 1)
    blocks = {f"{stage}.{index}.{name}" for stage, blocks in STAGES.items() for index in range(blocks) for name in BLOCK}
    assert set(net) == blocks | set(ENDS)


def test_bias_free_and_bias_name_what_they_should():
    free = set(on_meta(LayerNorm_type="BiasFree").state_dict())
    assert not any(name.endswith("bias") for name in free)
    biased = set(on_meta(bias=True).state_dict())
    extra = biased - set(on_meta().state_dict())
    assert {"encoder_level1.0.attn.qkv.bias", "latent.0.ffn.dwconv.bias", "reduce_chan_level2.bias", "output.bias"} <= extra
    assert not any("patch_embed" in name or name.startswith(("down", "up")) for name in extra)


def test_dual_pixel_has_six_channels_in_three_out_and_no_residual():
    torch.manual_seed(0)
    net = Restormer(**SMALL, inp_channels=6, out_channels=3, dual_pixel_task=True)
    assert net.skip_conv.weight.shape == (8, 4, 1, 1)
    assert net(torch.rand(2, 6, 11, 9)).shape == (2, 3, 11, 9)
    nn.init.zeros_(net.output.weight)
    assert not net(torch.rand(1, 6, 8, 8)).any()
    assert "skip_conv.weight" not in on_meta().state_dict()


def test_otherwise_the_output_is_added_to_the_input(small):
    net = Restormer(**SMALL)
    nn.init.zeros_(net.output.weight)
    x = torch.rand(2, 3, 13, 6)
    assert torch.equal(net(x), x)
    assert not torch.allclose(small(x), x, atol=1e-3)


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
@pytest.mark.parametrize("dual", [False, True], ids=["image", "dual pixel"])
def test_it_equals_the_published_implementation(norm, dual):
    pytest.importorskip("spandrel_extra_arches", reason="not installed: it holds the implementation that ours is compared with")
    from spandrel_extra_arches.architectures.Restormer import Restormer as Published

    torch.manual_seed(0)
    arguments = {**SMALL, "dim": 8, "num_blocks": [1, 2, 1, 2], "LayerNorm_type": norm, "dual_pixel_task": dual}
    arguments["inp_channels"] = 6 if dual else 3
    ours, theirs = randomised(Restormer(**arguments)), Published(**arguments)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, arguments["inp_channels"], 24, 32)
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).abs().max() < 1e-5 * max(1, expected.abs().max())


# ------------------------------------------------------------------------------------------------ sizes and layouts


@pytest.mark.parametrize("size", [(5, 13), (1, 1), (64, 48), (8, 8), (1, 40), (9, 2), (17, 31)], ids=str)
def test_any_size_returns_the_same_size(small, size):
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        y = small(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()


def seen_by_the_network(net, x):
    seen = []
    handle = net.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        y = net(x)
    handle.remove()
    return seen[0], y


def test_sizes_that_are_multiples_of_eight_are_not_padded(small):
    x = torch.rand(1, 3, 16, 24)
    seen, _ = seen_by_the_network(small, x)
    assert seen is x


@pytest.mark.parametrize(("size", "right", "bottom", "mode"), [((5, 13), 3, 3, "reflect"), ((2, 12), 4, 6, "replicate")])
def test_other_sizes_are_mirrored_or_replicated_at_the_bottom_and_right_and_cropped_back(size, right, bottom, mode, small):
    x = torch.rand(1, 3, *size)
    padded = F.pad(x, (0, right, 0, bottom), mode=mode)
    seen, y = seen_by_the_network(small, x)
    assert torch.equal(seen, padded)
    torch.testing.assert_close(y, small(padded)[..., : size[0], : size[1]])


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_channels_last_gives_the_same_output(norm):
    torch.manual_seed(0)
    net = Restormer(**SMALL, LayerNorm_type=norm)
    x = torch.rand(2, 3, 20, 28)
    with torch.no_grad():
        expected = net(x)
        net.to(memory_format=torch.channels_last)
        actual = net(x.contiguous(memory_format=torch.channels_last))
    assert (actual - expected).abs().max() < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("heads", [1, 2])
def test_attention_keeps_the_layout_forward_and_back(layout, heads):
    torch.manual_seed(0)
    net = randomised(MDTA(8, heads, bias=False))
    x, upstream = torch.randn(2, 2, 8, 6, 5)
    expected = torch.autograd.grad(net(x), list(net.parameters()), upstream)
    met = []
    net.project_out.register_forward_pre_hook(lambda layer, images: met.extend(images))
    net.qkv_dwconv.register_full_backward_pre_hook(lambda layer, gradients: met.extend(gradients))
    net.to(memory_format=layout)
    actual = torch.autograd.grad(net(x.to(memory_format=layout)), list(net.parameters()), upstream.to(memory_format=layout))
    assert len(met) == 2 and all(each.is_contiguous(memory_format=layout) for each in met)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_attention_to_nothing_has_a_gradient():
    net = MDTA(8, 2, bias=False).to(memory_format=torch.channels_last)
    x = torch.zeros(1, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_every_parameter_is_trained(small):
    net = Restormer(**SMALL, bias=True)
    net(torch.rand(1, 3, 16, 16)).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    # heads of one channel attend to that channel alone: their temperature, query and key have nothing to choose
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_bf16_stays_near_float32(norm):
    torch.manual_seed(0)
    net, x = Restormer(**SMALL, LayerNorm_type=norm), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = net(x)
        plain = net.bfloat16()(x.bfloat16())
    assert plain.dtype == torch.bfloat16
    for y in (autocast, plain):
        assert (y.float() - expected).abs().max() < 0.05


def test_fp16_holds_the_sums_over_large_images():
    """A query's product with a key grows with the number of pixels; half precision ends at 65504."""
    torch.manual_seed(0)
    attend = MDTA(4, 1, bias=False)
    x = 80 * torch.rand(1, 4, 64, 64)
    q, k, _ = attend.qkv_dwconv(attend.qkv(x)).flatten(2).chunk(3, 1)
    assert (q @ k.transpose(-2, -1)).abs().max() > 65504
    with torch.no_grad():
        expected = attend(x)
        torch.testing.assert_close(attend.half()(x.half()).float(), expected, atol=0.01 * expected.abs().max().item(), rtol=0)


def test_float64_is_computed_in_float64():
    torch.manual_seed(0)
    for norm in ("WithBias", "BiasFree"):
        net = randomised(Restormer(**SMALL, LayerNorm_type=norm)).double()
        x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
        direction = torch.randn_like(x)
        step = 1e-6
        with torch.no_grad():
            slope = (net(x + step * direction) - net(x - step * direction)).sum() / (2 * step)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).sum(), x)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------------------------------------ the parts


@pytest.mark.parametrize(("dim", "heads"), [(6, 1), (8, 2), (8, 4)])
def test_mdta_is_attention_across_channels(dim, heads):
    torch.manual_seed(0)
    attention = randomised(MDTA(dim, heads, bias=True)).double()
    x = torch.randn(2, dim, 5, 7, dtype=torch.float64)
    maps = attention.qkv_dwconv(attention.qkv(x)).flatten(2)
    expected = []
    for q, k, v in zip(*(part.chunk(heads, 1) for part in maps.chunk(3, 1)), strict=True):
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)
        expected.append((weights * attention.temperature[len(expected)]).softmax(-1) @ v)
    expected = attention.project_out(torch.cat(expected, 1).view(2, dim, 5, 7))
    assert (attention(x) - expected).abs().max() < 1e-10


def test_mdta_of_silent_channels_is_finite():
    attention = MDTA(4, 2, bias=False)
    x = torch.zeros(1, 4, 6, 6, requires_grad=True)
    y = attention(x)
    y.sum().backward()
    assert not y.any() and torch.isfinite(x.grad).all()


def test_gdfn_gates_one_half_by_the_other():
    torch.manual_seed(0)
    ffn = randomised(GDFN(6, 2.66, bias=True)).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    hidden = ffn.dwconv(ffn.project_in(x))
    gate, value = hidden[:, :15], hidden[:, 15:]  # int(6 * 2.66)
    expected = ffn.project_out(0.5 * gate * (1 + torch.erf(gate / 2**0.5)) * value)
    assert (ffn(x) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("with_bias", [True, False], ids=["WithBias", "BiasFree"])
def test_layer_norm_is_over_channels(with_bias):
    torch.manual_seed(0)
    norm = randomised(ChannelLayerNorm(5, with_bias)).double()
    x = 2 + 3 * torch.randn(2, 5, 4, 6, dtype=torch.float64)
    deviation = (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    weight = norm.body.weight.view(1, -1, 1, 1)
    if with_bias:
        expected = (x - x.mean(1, keepdim=True)) / deviation * weight + norm.body.bias.view(1, -1, 1, 1)
    else:
        expected = x / deviation * weight  # the mean goes into the deviation only
    assert (norm(x) - expected).abs().max() < 1e-10
