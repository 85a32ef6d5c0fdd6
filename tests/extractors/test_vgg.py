"""The VGG space is torchvision's VGG19 to the digit, from weights that one error explains where they cannot be had."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kd_plugins.extractors import VGGExtractor, build_extractor

MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
DEFAULT = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu5_1": 29}  # indices in torchvision's features


@pytest.fixture(scope="module")
def vgg():
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    net = make_layers(cfgs["E"]).eval()  # vgg19().features, without the 124 million weights of its classifier
    for module in net:
        if hasattr(module, "inplace"):
            module.inplace = False
    return net


@pytest.fixture(scope="module")
def weights(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{key}": value for key, value in vgg.state_dict().items()}, path)
    return str(path)


@pytest.fixture(scope="module")
def prefix(vgg, tmp_path_factory):
    """The first two blocks and conv3_1, as safetensors."""
    path = tmp_path_factory.mktemp("vgg") / "prefix.safetensors"
    state = {f"features.{key}": value for key, value in vgg.state_dict().items() if int(key.split(".")[0]) <= 10}
    save_file(state, path)
    return str(path)


def torchvisions(vgg, x, indices):
    found = []
    for index, module in enumerate(vgg):
        x = module(x)
        if index in indices:
            found.append(x)
    return found


def normalised(image):
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_equals_torchvision_exactly(vgg, weights):
    image = torch.rand(2, 3, 48, 40)
    with torch.no_grad():
        expected = torchvisions(vgg, normalised(image), DEFAULT.values())
    found = VGGExtractor(weights)(image)
    assert [x.shape[1] for x in found] == [64, 128, 256, 512, 512]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_levels_are_named_as_published(vgg, weights):
    image = torch.rand(1, 3, 32, 32)
    levels = ["conv1_2", "pool2", "relu3_4", "conv5_4"]
    with torch.no_grad():
        expected = torchvisions(vgg, normalised(image), [2, 9, 17, 34])
    assert all(torch.equal(a, b) for a, b in zip(VGGExtractor(weights, levels)(image), expected, strict=True))


def test_caffes_normalisation(vgg, weights):
    image = torch.rand(1, 3, 16, 16)
    red, green, blue = image[0] * 255
    with torch.no_grad():
        expected = vgg[0](torch.stack((blue - 103.939, green - 116.779, red - 123.68))[None])
    torch.testing.assert_close(VGGExtractor(weights, ["conv1_1"], normalise="caffe")(image)[0], expected, rtol=1e-5, atol=1e-4)


def test_a_prefix_is_enough_for_its_own_layers(prefix):
    extractor = VGGExtractor(prefix, ["relu1_1", "relu3_1"])
    assert len([name for name, _ in extractor.named_buffers() if name.endswith(".weight")]) == 5  # no layer beyond the deepest
    assert [x.shape[1] for x in extractor(torch.rand(1, 3, 16, 16))] == [64, 256]
    with pytest.raises(ValueError, match=r"prefix.safetensors': Missing key\(s\) in state_dict: \"features.12.weight\""):
        VGGExtractor(prefix, ["relu3_2"])


def test_the_gradient_flows_to_the_image_and_nothing_is_trained_or_saved(prefix):
    extractor = build_extractor({"type": "VGGExtractor", "weights": prefix, "levels": ["relu1_1", "relu2_1"]})
    image = torch.rand(2, 3, 16, 16, requires_grad=True)
    torch.stack([x.mean() for x in extractor(image)]).sum().backward()
    assert torch.isfinite(image.grad).all() and (image.grad.flatten(1).abs().amax(1) > 0).all()
    assert not list(extractor.parameters()) and not extractor.state_dict()
    assert not extractor.train().training
    assert extractor.double()(image.detach())[0].dtype == torch.float64  # it moves as any module does


def test_gray_is_the_same_as_three_equal_channels(prefix):
    extractor = VGGExtractor(prefix, ["relu2_1"])
    gray = torch.rand(1, 1, 16, 16)
    assert torch.equal(extractor(gray)[0], extractor(gray.repeat(1, 3, 1, 1))[0])


def test_images_that_do_not_fit_are_refused(weights):
    extractor = VGGExtractor(weights)
    with pytest.raises(ValueError, match=r"\(1, 4, 32, 32\)"):
        extractor(torch.rand(1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"relu5_1 takes .* at least 16 x 16"):
        extractor(torch.rand(1, 3, 15, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ["relu6_1"]}, "no layer 'relu6_1'; nearest: "),
        ({"levels": ["relu2_1", "relu1_1"]}, "shallow to deep"),
        ({"levels": []}, "levels: .., expected .* a list of at least 1"),
        ({"normalise": "imagnet"}, "'imagnet', expected one of imagenet, caffe"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGGExtractor("torchvision", **arguments)


def test_a_missing_file_names_path_and_download(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pth' is no file\).*weights: PATH.*weights: torchvision.*https://.*vgg19"):
        VGGExtractor(str(tmp_path / "none.pth"))


def test_a_failed_download_names_path_and_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*weights: PATH.*https://.*vgg19") as error:
        VGGExtractor("torchvision")
    assert str(tmp_path) in str(error.value)


def test_torchvisions_cache_is_read(tmp_path, monkeypatch, prefix):
    from safetensors.torch import load_file
    from torchvision.models import VGG19_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(load_file(prefix), cache / Path(VGG19_Weights.IMAGENET1K_V1.url).name)
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(VGGExtractor(levels=["relu2_1"])(image)[0], VGGExtractor(prefix, ["relu2_1"])(image)[0])


def test_files_that_are_no_vgg19_are_refused(tmp_path):
    other, wrong, code = (tmp_path / name for name in ("other.pth", "wrong.pth", "code.pth"))
    torch.save({"conv.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match=r"Missing key\(s\) in state_dict: \"features.0.weight\", .* expected torchvision's VGG19"):
        VGGExtractor(str(other))
    torch.save({"features.0.weight": torch.zeros(32, 3, 3, 3), "features.0.bias": torch.zeros(32)}, wrong)
    with pytest.raises(ValueError, match=r"features.0.weight: copying a param with shape torch.Size\(\[32, 3, 3, 3\]\)"):
        VGGExtractor(str(wrong), ["conv1_1"])
    torch.save(torch.nn.Conv2d(3, 4, 3), code)  # a pickled module: its class would have to be run
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        VGGExtractor(str(code))


def test_the_real_weights_hold_a_blurred_photo_nearer_than_another_one(shared):
    """Caffe's ImageNet VGG19 (conv1_1 to conv3_4) on a photo: its own features are nearer to it, blurred, than another photo's."""
    from skimage.data import astronaut, coffee

    path = shared("weights/vgg19_prefix_f32.pth")
    extractor = VGGExtractor(str(path), ["relu1_1", "relu2_1", "relu3_1"], normalise="caffe")
    photo, other = (torch.from_numpy(p()[100:228, 100:228].copy()).permute(2, 0, 1)[None] / 255 for p in (astronaut, coffee))
    blurred = torch.nn.functional.avg_pool2d(photo, 3, 1, 1)
    for own, near, far in zip(*map(extractor, (photo, blurred, other)), strict=True):
        assert 0 < (own - near).abs().mean() < 0.7 * (own - far).abs().mean()
        assert (own.flatten(2).amax(2) > 0).float().mean() > 0.5  # most channels answer to a photo
