"""The tokenizer has the published layout, and computes what others do."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from small_tokenizer import TINY, make

from kd_plugins.extractors.vq_encoder import VQTokenizer, layout_of


def published_shapes():
    """The names and shapes of vqgan_imagenet_f16_1024's three parts, written out from its config (ch 128, 1 1 2 2 4, 2 blocks)."""
    shapes = {}

    def conv(name, out, into, size):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, size, size), (out,)

    def norm(name, width):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    def residual(name, into, out):
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", out, into, 3)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out, 3)
        if into != out:
            conv(f"{name}.nin_shortcut", out, into, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    conv("encoder.conv_in", 128, 3, 3)
    for level, (into, out) in enumerate([(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]):
        residual(f"encoder.down.{level}.block.0", into, out)
        residual(f"encoder.down.{level}.block.1", out, out)
        if level == 4:
            attention("encoder.down.4.attn.0", 512)
            attention("encoder.down.4.attn.1", 512)
        else:
            conv(f"encoder.down.{level}.downsample.conv", out, out, 3)
    residual("encoder.mid.block_1", 512, 512)
    attention("encoder.mid.attn_1", 512)
    residual("encoder.mid.block_2", 512, 512)
    norm("encoder.norm_out", 512)
    conv("encoder.conv_out", 256, 512, 3)
    conv("quant_conv", 256, 256, 1)
    shapes["quantize.embedding.weight"] = (1024, 256)
    return shapes


def test_the_default_has_the_published_names_and_shapes():
    with torch.device("meta"):
        net = VQTokenizer()
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == published_shapes()
    assert sum(p.numel() for p in net.parameters()) == 29_626_112
    assert net.stride == 16


def test_the_layout_is_told_from_the_shapes():
    weights = {key: torch.empty(shape, device="meta") for key, shape in published_shapes().items()}
    with torch.device("meta"):
        assert {**layout_of(weights), "groups": 32} == VQTokenizer().arguments
    other = make(ch_mult=[1, 2, 2], num_res_blocks=1, attention_levels=[1, 2])
    assert {**layout_of(other.state_dict()), "groups": 2} == other.arguments


def test_the_encoder_computes_what_another_implementation_does():
    """spandrel's RestoreFormer has the same encoder but for one name; with one head the attention is the same too."""
    arch = importlib.import_module("spandrel.architectures.RestoreFormer.__arch.restoreformer_arch")
    other = arch.MultiHeadEncoder(
        ch=32, out_ch=3, ch_mult=(1, 1, 2, 2, 4), attn_resolutions=(16,), resolution=256, z_channels=8, double_z=False
    ).eval()
    net = make(ch=32, groups=32)
    theirs = {}
    for key in other.state_dict():
        ours = (
            key.replace("attn.0.norm1", "attn.0.norm").replace("attn.1.norm1", "attn.1.norm").replace("attn_1.norm1", "attn_1.norm")
        )
        if ".norm2" in key and ".attn" in key:  # of its cross attention, not used here
            theirs[key] = other.state_dict()[key]
        else:
            theirs[key] = net.encoder.state_dict()[ours]
    assert len(theirs) == len(net.encoder.state_dict()) + 6
    other.load_state_dict(theirs)
    x = torch.randn(2, 3, 70, 48)
    with torch.no_grad():
        torch.testing.assert_close(net.encoder(x)[1], other(x)["out"], rtol=1e-4, atol=1e-4)


def test_the_levels_and_z_are_what_a_plain_reference_gives(image):
    net = make().double()
    w = net.state_dict()
    x = image.double()

    def conv(name, x, **kw):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **kw)

    def norm(name, x):
        grouped = x.reshape(len(x), 2, -1)
        normed = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return normed.reshape(x.shape) * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    def swish(x):
        return x * torch.sigmoid(x)

    def residual(name, x):
        out = conv(f"{name}.conv1", swish(norm(f"{name}.norm1", x)), padding=1)
        out = conv(f"{name}.conv2", swish(norm(f"{name}.norm2", out)), padding=1)
        return out + (conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in w else x)

    def attention(name, x):
        q, k, v = (conv(f"{name}.{part}", norm(f"{name}.norm", x)).flatten(2) for part in "qkv")
        p = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        return x + conv(f"{name}.proj_out", (v @ p.transpose(1, 2)).reshape(x.shape))

    levels = []
    h = conv("encoder.conv_in", x, padding=1)
    for i in range(5):
        h = residual(f"encoder.down.{i}.block.0", h)
        levels.append(h)
        h = attention("encoder.down.4.attn.0", h) if i == 4 else h
        h = residual(f"encoder.down.{i}.block.1", h)
        h = attention("encoder.down.4.attn.1", h) if i == 4 else h
        if i < 4:
            height, width = h.shape[2] // 2 * 2 + 1, h.shape[3] // 2 * 2 + 1
            padded = h.new_zeros(*h.shape[:2], height, width)
            padded[:, :, : h.shape[2], : h.shape[3]] = h
            h = conv(f"encoder.down.{i}.downsample.conv", padded, stride=2)
    h = residual("encoder.mid.block_2", attention("encoder.mid.attn_1", residual("encoder.mid.block_1", h)))
    z = conv("quant_conv", conv("encoder.conv_out", swish(norm("encoder.norm_out", h)), padding=1))

    ours, our_z = net(x)
    for one, other in zip(ours, levels, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(our_z, z)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": 3}, "'groups' is 3, which does not divide a level's width, 4"),
        ({"ch": 0}, "ch: 0"),
        ({"ch_mult": []}, "ch_mult: "),
        ({"ch_mult": [1, 1.5]}, "ch_mult: "),
        ({"attention_levels": [5]}, "there are 5 levels"),
    ],
)
def test_arguments_out_of_range_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        VQTokenizer(**{**TINY, **change})


def test_the_gradient_is_that_of_finite_differences():
    net = make(ch_mult=[1, 2], attention_levels=[1]).double()
    x = torch.rand(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: tuple(net(image)[0]) + (net(image)[1],), (x,))
