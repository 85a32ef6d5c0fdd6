"""The tokenizer reads foreign checkpoints without running them, and looks at images as DCKD does."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from small_tokenizer import TINY, make
from states import Code, same
from torch import nn

from kd_plugins.extractors import TokenizerExtractor, build_extractor, load_tokenizer, save_tokenizer

PUBLISHED_GROUPS = {**TINY, "ch": 32, "groups": 32}  # what a raw checkpoint is read as


@pytest.fixture
def tiny(tmp_path):
    save_tokenizer(make(), tmp_path / "tiny.safetensors", torch.float32)
    return tmp_path / "tiny.safetensors"


# ------------------------------------------------------------------------------------------------ files


def vqgan(net, **more):
    """The state dict of a whole VQGAN: with a decoder and a loss, that must be left alone."""
    extra = {
        "decoder.conv_in.weight": torch.zeros(3),
        "post_quant_conv.weight": torch.zeros(2),
        "loss.discriminator.x": torch.ones(1),
    }
    return {**net.state_dict(), **extra, **more}


class ModelCheckpoint:
    """Stands for a class of a training framework that is not installed where the file is read."""

    def __init__(self):
        self.best = [1, 2]


def test_a_saved_tokenizer_comes_back_with_its_architecture(tmp_path):
    net = make()
    save_tokenizer(net, tmp_path / "a.safetensors", torch.float32)
    back = load_tokenizer(tmp_path / "a.safetensors")
    assert same(back.state_dict(), net.state_dict()) and back.arguments == net.arguments
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    save_tokenizer(net.to(memory_format=torch.channels_last), tmp_path / "half.safetensors")
    half = load_tokenizer(tmp_path / "half.safetensors").state_dict()
    assert all(value.dtype == torch.float32 for value in half.values())
    assert all(torch.equal(half[key], value.half().float()) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match="ends in .safetensors"):
        save_tokenizer(net, tmp_path / "a.pth")


@pytest.mark.parametrize("key", ["state_dict", "params_ema", "params", None])
def test_a_plain_checkpoint_is_read_by_its_shapes(tmp_path, key):
    net = make(ch=32, groups=32)
    content = vqgan(net)
    torch.save(content if key is None else {key: content, "epoch": 3}, tmp_path / "a.pth")
    back = load_tokenizer(tmp_path / "a.pth")
    assert same(back.state_dict(), net.state_dict()) and back.arguments == PUBLISHED_GROUPS


def test_safetensors_without_metadata_are_read_by_their_shapes(tmp_path):
    net = make(ch=32, groups=32)
    save_file(vqgan(net), tmp_path / "a.safetensors")
    assert same(load_tokenizer(tmp_path / "a.safetensors").state_dict(), net.state_dict())


def test_a_training_checkpoint_with_foreign_classes_is_read(tmp_path):
    net = make(ch=32, groups=32)
    state = vqgan(net, **{"quantize.embedding.weight": nn.Parameter(net.quantize.embedding.weight)})
    content = {"epoch": 3, "callbacks": {ModelCheckpoint: {"best": 1.0}}, "loops": [ModelCheckpoint(), {3}], "state_dict": state}
    torch.save(content, tmp_path / "last.ckpt")
    assert same(load_tokenizer(tmp_path / "last.ckpt").state_dict(), net.state_dict())


@pytest.mark.parametrize("place", ["beside", "before", "inside"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, place):
    net, ran = make(ch=32, groups=32), tmp_path / "ran"
    state = vqgan(net)
    content = {
        "beside": {"state_dict": state, "hyper_parameters": Code(ran)},
        "before": {"hyper_parameters": [Code(ran)], "state_dict": state},
        "inside": {"state_dict": {**state, "code": Code(ran)}},
    }[place]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"without running code: it names \w+\.mkdir, which is code"):
        load_tokenizer(tmp_path / "last.ckpt")
    assert not ran.exists()
    torch.load(tmp_path / "last.ckpt", weights_only=False)  # the file is as dangerous as it was meant to be
    assert ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_are_no_weights_are_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*none\.ckpt' is no file"):
        load_tokenizer(tmp_path / "none.ckpt")
    for name, content in (("a.ckpt", b""), ("b.ckpt", b"not weights"), ("c.safetensors", b"not weights")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            load_tokenizer(tmp_path / name)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"state_dict": Code(tmp_path / "ran")}))
    with pytest.raises(ValueError, match=r"plain\.pkl: cannot be read without running code: it is no file of tensors"):
        load_tokenizer(tmp_path / "plain.pkl")
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds list, expected a dict of tensors"):
        load_tokenizer(tmp_path / "list.pth")


@pytest.mark.parametrize("part", ["encoder.", "quant_conv.", "quantize.embedding.weight"])
def test_a_file_without_a_part_is_refused(tmp_path, part):
    weights = {key: value for key, value in vqgan(make(ch=32, groups=32)).items() if not key.startswith(part)}
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"a\.ckpt: no {part.rstrip('.')}; expected a VQGAN by its published names"):
        load_tokenizer(tmp_path / "a.ckpt")


def test_weights_that_do_not_fit_each_other_are_refused(tmp_path):
    weights = vqgan(make(ch=32, groups=32))
    for changed, said in (
        ({"encoder.mid.block_1.temb_proj.weight": torch.zeros(2)}, "1 problems, first: Unexpected"),
        ({"quant_conv.weight": torch.zeros(6, 5, 1, 1)}, "1 problems, first: size mismatch for quant_conv.weight"),
        ({"encoder.down.1.block.0.conv1.weight": torch.zeros(33, 32, 3, 3)}, "expected multiples of the first convolution's, 32"),
    ):
        torch.save({**weights, **changed}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=said):
            load_tokenizer(tmp_path / "a.pth")
    torch.save({key: value for key, value in weights.items() if key != "encoder.conv_in.weight"}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"no tokenizer of this layout: no encoder\.conv_in\.weight"):
        load_tokenizer(tmp_path / "a.pth")
    torch.save(vqgan(make()), tmp_path / "a.pth")  # 4 channels cannot have the 32 groups of the published ones
    with pytest.raises(ValueError, match="'groups' is 32, which does not divide"):
        load_tokenizer(tmp_path / "a.pth")


def test_another_networks_safetensors_are_refused(tmp_path):
    save_file(make().state_dict(), tmp_path / "a.safetensors", metadata={"network": json.dumps({"type": "Restormer", "dim": 4})})
    with pytest.raises(ValueError, match="its metadata describes another network"):
        load_tokenizer(tmp_path / "a.safetensors")


# ------------------------------------------------------------------------------------------------ the extractor


def test_five_levels_are_the_first_residual_blocks_outputs(tiny, image):
    extractor = build_extractor({"type": "TokenizerExtractor", "weights": str(tiny)})
    seen = []
    for level in extractor.net.encoder.down:
        level.block[0].register_forward_hook(lambda module, args, output: seen.append(output))
    levels, z = extractor.encode(image)
    assert [tuple(level.shape) for level in levels] == [(2, 4, 48, 32), (2, 4, 24, 16), (2, 8, 12, 8), (2, 8, 6, 4), (2, 16, 3, 2)]
    assert all(torch.equal(one, other) for one, other in zip(levels, seen, strict=True))
    assert z.shape == (2, 6, 3, 2) and extractor.codebook.shape == (10, 6) and extractor.stride == 16
    alone = extractor(image)
    assert len(seen) == 10 and all(torch.equal(one, other) for one, other in zip(alone, levels, strict=True))


def test_the_levels_alone_leave_the_rest_of_the_encoder_out(tiny, image):
    extractor = TokenizerExtractor(tiny)
    ran = []
    for module in (extractor.net.encoder.mid, extractor.net.encoder.down[-1].attn[0], extractor.net.quant_conv):
        module.register_forward_hook(lambda module, args, output: ran.append(module))
    extractor(image)
    assert not ran
    extractor.encode(image)
    assert len(ran) == 3


def test_the_range_is_symmetric_or_the_images_own(tiny, image):
    symmetric, unit = TokenizerExtractor(tiny), TokenizerExtractor(tiny, range="unit")
    torch.testing.assert_close(symmetric.encode(image)[1], unit.encode(image * 2 - 1)[1])
    assert not torch.allclose(symmetric.encode(image)[1], unit.encode(image)[1], atol=1e-3)
    with pytest.raises(ValueError, match="range: 'both', expected one of symmetric, unit"):
        TokenizerExtractor(tiny, range="both")


def test_it_is_frozen_and_stays_in_eval_mode_but_passes_the_gradient(tiny, image):
    extractor = nn.ModuleList([TokenizerExtractor(tiny)]).train()[0]
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    for pick in range(6):
        x = image.clone().requires_grad_()
        levels, z = extractor.encode(x)
        (*levels, z)[pick].square().mean().backward()
        assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and (x.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (47, 33), (45, 63)])
def test_odd_sizes_are_rounded_down_at_each_level(tiny, size):
    extractor = TokenizerExtractor(tiny)
    levels, z = extractor.encode(torch.rand(1, 3, *size))
    assert [level.shape[2:] for level in levels] == [(size[0] >> i, size[1] >> i) for i in range(5)]
    assert z.shape[2:] == (size[0] // 16, size[1] // 16)


def test_the_last_row_of_an_odd_size_is_seen(tiny):
    extractor = TokenizerExtractor(tiny)
    x = torch.rand(1, 3, 31, 31).requires_grad_()
    extractor.encode(x)[1].sum().backward()
    assert x.grad is not None and (x.grad[..., -1, :] != 0).all() and (x.grad[..., :, -1] != 0).all()


def test_a_gray_image_is_one_of_three_equal_channels(tiny):
    extractor, gray = TokenizerExtractor(tiny), torch.rand(2, 1, 32, 32)
    for mine, theirs in zip(extractor(gray), extractor(gray.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "bad", [torch.rand(1, 3, 15, 64), torch.rand(1, 4, 32, 32), torch.rand(3, 32, 32), torch.ones(1, 3, 32, 32).int()]
)
def test_what_is_no_image_is_refused(tiny, bad):
    extractor = TokenizerExtractor(tiny)
    for call in (extractor, extractor.encode):
        with pytest.raises(ValueError, match="H and W from 16 up, got torch"):
            call(bad)


def test_it_runs_under_bf16_autocast(tiny, image):
    extractor = TokenizerExtractor(tiny)
    exact = extractor.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        x = image.clone().requires_grad_()
        levels, z = extractor.encode(x)
        (sum(level.float().mean() for level in levels) + z.float().mean()).backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    for one, other in zip([*levels, z], [*exact[0], exact[1]], strict=True):
        assert (one.float() - other).abs().mean() < 0.05 * other.std()
