"""The tokenizer's training script and its converter run, and leave files that the extractor takes."""

import runpy
from pathlib import Path

import cv2
import pytest
import skimage.data
import torch

from kd_plugins.extractors import TokenizerExtractor, load_tokenizer, save_tokenizer
from kd_plugins.extractors.vq_decoder import VQDecoder
from kd_plugins.extractors.vq_encoder import VQTokenizer

TOOLS = Path(__file__).parents[2] / "tools"
TINY = [
    "--ch",
    "4",
    "--ch_mult",
    "1",
    "1",
    "1",
    "1",
    "2",
    "--groups",
    "2",
    "--codes",
    "8",
    "--dim",
    "4",
    "--crop",
    "32",
    "--batch",
    "2",
]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(TOOLS / "train_tokenizer.py"))


@pytest.fixture
def photos(tmp_path):
    """A folder with two real photos, small."""
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "cat.png"), skimage.data.chelsea()[100:164, 100:180, ::-1])
    cv2.imwrite(str(folder / "rocket.png"), skimage.data.rocket()[:70, 300:350, ::-1])
    return str(folder)


def test_a_short_run_leaves_a_tokenizer_and_prints_its_card(script, photos, tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    run = ["--steps", "25", "--print_freq", "5", "--soft_codes", "3", "--photos", photos, "--validation", photos, "--out", str(out)]
    script["main"]([*TINY, *run])
    said = capsys.readouterr().out
    losses = [float(line.split("loss ")[1].split()[0]) for line in said.splitlines() if line.startswith("step")]
    assert len(losses) == 5 and losses[-1] < losses[0]
    for row in (
        "| trained on | 2 photos, 25 steps of batch 2 x 32²",
        "dB PSNR (RGB), mean of 2 photos",
        "| codes | 8, ",
        "soft assignment",
    ):
        assert row in said
    extractor = TokenizerExtractor(out)
    levels, z = extractor.encode(torch.rand(1, 3, 32, 32))
    assert (
        [level.shape[1] for level in levels] == [4, 4, 4, 4, 8] and z.shape == (1, 4, 2, 2) and extractor.codebook.shape == (8, 4)
    )
    assert bool(torch.isfinite(extractor.codebook).all()) and extractor.codebook.std() > 0


def test_wrong_arguments_are_named(script, photos, tmp_path, capsys):
    for arguments, said in (
        (["--crop", "18"], "expected 3 levels or more, and a multiple of 16"),
        (["--out", str(tmp_path / "a.pth")], "expected a .safetensors file"),
    ):
        with pytest.raises(SystemExit):
            script["main"]([*TINY, "--out", str(tmp_path / "a.safetensors"), *arguments])
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="'.*cat.png' is 80x64; expected 80 or more on each side"):
        script["main"]([*TINY, "--out", str(tmp_path / "a.safetensors"), "--crop", "80", "--photos", photos])


def test_codes_that_nothing_is_assigned_to_start_anew(script):
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    book = script["Codebook"](z, 4, 0.5, torch.Generator().manual_seed(0))
    book.codes[0] = book.sums[0] = 1e3
    book.sums[0] *= book.used[0]
    for _ in range(8):
        book.update(z, script["nearest_codes"](z, book.codes), restart=False)
    assert book.codes[0].abs().max() > 100
    book.update(z, script["nearest_codes"](z, book.codes), restart=True)
    assert book.codes[0].abs().max() < 10


def test_scaling_reaches_the_soft_assignment_asked_for_and_keeps_the_nearest_code(script):
    torch.manual_seed(0)
    net = VQTokenizer(4, (1, 2), 1, (), 4, 4, 32, 2).requires_grad_(False)
    net.quantize.embedding.weight.mul_(0.2)
    x = torch.rand(4, 3, 32, 32)
    before = script["flat"](net(x)[1])
    index = script["nearest_codes"](before, net.quantize.embedding.weight)
    scale = script["scale_codes"](net, before, 6.0)
    after = script["flat"](net(x)[1])
    torch.testing.assert_close(after, before * scale)
    assert script["soft_codes"](after, net.quantize.embedding.weight) == pytest.approx(6, rel=1e-3)
    assert torch.equal(script["nearest_codes"](after, net.quantize.embedding.weight), index)
    p = torch.softmax(-torch.cdist(after, net.quantize.embedding.weight).square(), 1)  # as DCKD's distribution is defined
    assert torch.exp(-(p * p.log()).sum(1).mean()).item() == pytest.approx(6, rel=1e-3)


def test_perplexity_counts_equally_used_codes(script):
    assert script["perplexity"](torch.tensor([5.0, 5, 0, 5, 5])) == pytest.approx(4)


def test_the_decoder_undoes_the_stride():
    for doublings in (2, 4):
        assert VQDecoder(6, 16, doublings, 2)(torch.rand(1, 6, 3, 2)).shape == (1, 3, 3 * 2**doublings, 2 * 2**doublings)


def test_a_training_checkpoint_is_converted_once(tmp_path, capsys):
    net = VQTokenizer(32, (1, 2), 1, (1,), 8, 8, 16, 32)
    torch.save(
        {"state_dict": {**net.state_dict(), "decoder.x": torch.zeros(1)}, "callbacks": {Path: tmp_path}}, tmp_path / "last.ckpt"
    )
    convert = runpy.run_path(str(TOOLS / "convert_tokenizer.py"))["main"]
    convert([str(tmp_path / "last.ckpt"), str(tmp_path / "out.safetensors")])
    assert "parameters" in capsys.readouterr().out
    back = load_tokenizer(tmp_path / "out.safetensors")
    assert back.arguments == net.arguments
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in back.state_dict().items())
    convert([str(tmp_path / "out.safetensors"), str(tmp_path / "half.safetensors"), "--half"])
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "out.safetensors").stat().st_size
    save_tokenizer(back, tmp_path / "again.safetensors", torch.float32)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()
