from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kd_plugins.extractors import BrisqueModel, brisque_features, brisque_score, load_brisque_model, piqe_score
from kd_plugins.extractors.brisque_image import aggd_sums, fit_aggd
from kd_plugins.extractors.gray_images import MARGIN, mscn_image
from kd_plugins.extractors.nss import gaussian_window

data = pytest.importorskip("skimage.data", reason="scikit-image brings the photos")

# From OpenCV 5.0 QualityBRISQUE.computeFeatures, the first scale, and pypiqe 1.2, on the BGR photos.
OPENCV = {
    'astronaut': (1.447, 0.21659, 0.581, 0.018563, 0.051354, 0.066643, 0.574, 0.022668, 0.052063, 0.071235, 0.581,
                  -0.013125, 0.065579, 0.054655, 0.589, -0.018073, 0.066432, 0.051629),
    'chelsea': (1.412, 0.2311, 0.53, 0.050602, 0.05633, 0.10697, 0.532, 0.021698, 0.069317, 0.091014, 0.537, -0.034911,
                0.09873, 0.063859, 0.516, 0.0035614, 0.078988, 0.082626),
    'coffee': (1.716, 0.29146, 0.617, 0.022124, 0.088583, 0.11173, 0.611, -0.022749, 0.11533, 0.091069, 0.595, -0.09603,
               0.16713, 0.061178, 0.556, 0.11838, 0.054556, 0.19252),
    'rocket': (1.185, 0.1878, 0.445, -0.018996, 0.077973, 0.058692, 0.41, 0.017385, 0.067315, 0.087033, 0.406,
               -0.019449, 0.081143, 0.059939, 0.413, -0.02171, 0.079114, 0.056201),
}  # fmt: skip
# The second scale of chelsea, which goes through the resize.
OPENCV_SECOND = (1.553, 0.3009, 0.58, 0.0063188, 0.12863, 0.13645, 0.59, -0.028873, 0.14317, 0.10867, 0.593, -0.036229,
                 0.14191, 0.099665, 0.567, -0.027948, 0.14467, 0.11045)  # fmt: skip
PYPIQE = {"astronaut": 33.662, "chelsea": 34.017, "coffee": 27.911, "rocket": 38.771}


def photo(name: str) -> np.ndarray:
    return getattr(data, name)()


def batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def variants() -> dict[str, np.ndarray]:
    image = photo("astronaut")[100:300, 100:300]
    noise = np.random.RandomState(0).randn(*image.shape) * 25
    return {
        "noisy": np.clip(image + noise, 0, 255).astype(np.uint8),
        "blurred": cv2.GaussianBlur(image, (0, 0), 3),
        "odd": image[:101, :57].copy(),
        "small": image[:33, :40].copy(),
    }


@pytest.mark.parametrize("name", OPENCV)
def test_brisque_features_are_opencvs(name):
    ours = brisque_features(batch(photo(name)))[0, :18].numpy()
    np.testing.assert_allclose(ours, OPENCV[name], rtol=1e-2)


def test_brisque_second_scale_is_opencvs():
    ours = brisque_features(batch(photo("chelsea")))[0, 18:].numpy()
    np.testing.assert_allclose(ours, OPENCV_SECOND, rtol=1e-2)


@pytest.mark.parametrize("name", PYPIQE)
def test_piqe_is_pypiqes(name):
    assert piqe_score(batch(photo(name))).item() == pytest.approx(PYPIQE[name], abs=1)


@pytest.mark.parametrize("name", ["noisy", "blurred", "odd", "small"])
def test_against_installed_opencv_contrib(name):
    if not hasattr(cv2, "quality"):
        pytest.skip("opencv-contrib-python is not installed")
    image = variants()[name]
    theirs = cv2.quality.QualityBRISQUE_computeFeatures(image[..., ::-1].copy()).ravel()[:18]
    np.testing.assert_allclose(brisque_features(batch(image))[0, :18].numpy(), theirs, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["noisy", "blurred", "odd", "small"])
def test_against_installed_pypiqe(name):
    piqe = pytest.importorskip("pypiqe", reason="pypiqe is not installed").piqe
    image = variants()[name]
    assert piqe_score(batch(image)).item() == pytest.approx(float(piqe(image[..., ::-1].copy())[0]), abs=1)


def test_brisque_score_is_opencvs_on_the_live_model(shared):
    model = load_brisque_model(shared("brisque_svm"))
    expected = {"astronaut": 0.4951, "chelsea": 2.0648, "coffee": 3.6062, "rocket": 9.2123}
    for name, score in expected.items():
        assert brisque_score(batch(photo(name)), model).item() == pytest.approx(score, abs=1)


def test_images_of_a_batch_do_not_see_each_other():
    image = photo("chelsea")[:200, :200]
    pair = torch.cat((batch(image), batch(image[::-1])))
    for function in (brisque_features, piqe_score):
        torch.testing.assert_close(function(pair)[:1], function(pair[:1]))


@pytest.mark.parametrize(("height", "width"), [(45, 33), (16, 16), (10, 90), (4, 5)])
def test_mscn_of_a_batch_is_that_by_convolution(height, width):
    torch.manual_seed(0)
    x = torch.rand(3, 1, height, width).mul(255).round()
    kernel = torch.outer(gaussian_window(), gaussian_window())[None, None]
    padded = torch.nn.functional.pad(x.double(), (3, 3, 3, 3), mode="replicate")
    mu = torch.conv2d(padded, kernel)
    expected = (x - mu) / ((torch.conv2d(padded.square(), kernel) - mu.square()).clamp_min(0).sqrt() + 1)
    ours = mscn_image(x)
    torch.testing.assert_close(ours[..., :width], expected.float(), rtol=1e-4, atol=1e-4)
    assert ours.shape[-1] == width + MARGIN and not ours[..., width:].any()


@pytest.mark.parametrize("level", [0, 77, 255])
def test_flat_areas_have_no_sign(level):
    x = torch.full((1, 1, 40, 50), float(level))
    x[..., 30:] = 128
    assert not mscn_image(x)[..., :27].any() and mscn_image(x)[..., 27:33].all()


def test_sums_are_those_of_the_stored_products():
    torch.manual_seed(0)
    maps = torch.nn.functional.pad(torch.randn(2, 20, 30), (0, 1)).double()
    maps[:, 3, 4:9] = 0
    sums = aggd_sums(maps.flatten(1), (1, 31, 32, 30))
    m = maps[..., :-1]
    products = [m, m[..., :-1] * m[..., 1:], m[:, :-1] * m[:, 1:], m[:, :-1, :-1] * m[:, 1:, 1:], m[:, :-1, 1:] * m[:, 1:, :-1]]
    for ours, p in zip(sums.unbind(1), products, strict=True):
        expected = torch.stack((p.abs(), p * p, p * p.abs(), p.sign(), p.sign().abs())).sum((-2, -1)).T
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("function", [brisque_features, piqe_score])
def test_finite_with_finite_gradients_on_hard_images(function):
    hard = {name: batch(image) for name, image in variants().items()}
    hard |= {"gray": batch(photo("chelsea")[:64, :64]).mean(1, keepdim=True), "black": torch.zeros(1, 3, 32, 32)}
    hard |= {"constant": torch.full((2, 3, 40, 40), 0.5), "tiny": torch.rand(1, 3, 5, 7)}
    hard |= {"bf16": batch(photo("chelsea")[:64, :64]).bfloat16()}
    for name, x in hard.items():
        x = x.clone().requires_grad_()
        out = function(x)
        assert torch.isfinite(out).all() and out.dtype == torch.float32, name
        out.sum().backward()
        assert torch.isfinite(x.grad).all(), name
        # PIQE of the blurred one is flat: every block counts as artefact and as noise, (1 - v) + v.
        if name in {"noisy", "odd"}:
            assert x.grad.abs().max() > 0, name


def test_constant_image_has_the_worst_piqe():
    assert piqe_score(torch.full((1, 3, 32, 32), 0.5)).item() == 100


def test_autocast_changes_nothing():
    x = batch(photo("chelsea")[:96, :96])
    plain = brisque_features(x), piqe_score(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(brisque_features(x), plain[0]) and torch.equal(piqe_score(x), plain[1])


def test_shape_gradient_is_that_of_the_moment_equation():
    """Over a move of many table steps, the shape changes as its gradient says."""
    torch.manual_seed(0)
    values = torch.randn(1, 1, 100, 100).double()
    values = values.sign() * values.abs() ** 1.3

    def shape_at(power: torch.Tensor) -> torch.Tensor:
        sums = aggd_sums((values.sign() * values.abs() ** power).flatten(1), ())
        return fit_aggd(sums, torch.tensor(values.numel()))[0][0, 0]

    power = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(shape_at(power), power)
    difference = (shape_at(power + 0.02) - shape_at(power - 0.02)) / 0.04
    assert gradient.item() == pytest.approx(difference.item(), rel=0.05)


@pytest.mark.parametrize("function", [brisque_features, piqe_score])
@pytest.mark.parametrize("x", [torch.rand(3, 8, 8), torch.rand(1, 2, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_what_is_no_image_is_said(function, x):
    with pytest.raises(ValueError, match="N, 1 or 3, H, W"):
        function(x)


def test_brisque_of_less_than_a_window_is_said():
    with pytest.raises(ValueError, match="at least 4 x 4"):
        brisque_features(torch.rand(1, 3, 3, 20))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("function", [brisque_features, piqe_score])
def test_one_value_that_is_not_finite_spoils_its_image_alone(function, value):
    x = torch.rand(2, 3, 40, 36)
    x[0, 1, 20, 7] = value
    out = function(x).view(2, -1)
    assert out[0].isnan().any() and out[1].isfinite().all()


def write_model(folder: Path) -> tuple[Path, np.ndarray]:
    vectors = np.random.RandomState(0).uniform(-1, 1, (2, 36)).astype(np.float32)
    rows = "".join(f"      - [ {', '.join(f'{v:.8e}' for v in row)} ]\n" for row in vectors)
    text = (
        "%YAML:1.0\n---\nopencv_ml_svm:\n   svmType: EPS_SVR\n   kernel:\n      type: RBF\n      gamma: 0.05\n"
        f"   support_vectors:\n{rows}   decision_functions:\n      -\n         sv_count: 2\n         rho: -50.\n"
        "         alpha: [ 30., -10. ]\n"
    )
    limits = ", ".join(["0."] * 36 + ["2."] * 36)
    model = folder / "brisque_model_live.yml"
    model.write_text(text)
    matrix = f"range: !!opencv-matrix\n   rows: 2\n   cols: 36\n   dt: f\n   data: [ {limits} ]\n"
    (folder / "brisque_range_live.yml").write_text(f"%YAML:1.0\n---\n{matrix}")
    return model, vectors


def test_model_file_is_read_and_evaluated(tmp_path, monkeypatch):
    path, vectors = write_model(tmp_path)
    features = torch.rand(3, 36)
    kernel = np.exp(-0.05 * ((features.numpy()[:, None] - 1 - vectors) ** 2).sum(-1))
    model = load_brisque_model(path)
    assert isinstance(model, BrisqueModel)
    np.testing.assert_allclose(model(features).numpy(), kernel @ [30, -10] + 50, rtol=1e-5)
    monkeypatch.setenv("KD_BRISQUE_MODEL", str(tmp_path))
    assert load_brisque_model() is model
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert load_brisque_model("~", "~/brisque_range_live.yml") is model


def test_missing_model_says_where_it_can_be_had(tmp_path, monkeypatch):
    monkeypatch.delenv("KD_BRISQUE_MODEL", raising=False)
    with pytest.raises(FileNotFoundError, match="opencv_contrib"):
        load_brisque_model(tmp_path / "none.yml")
    path, _ = write_model(tmp_path)
    (tmp_path / "brisque_range_live.yml").unlink()
    with pytest.raises(FileNotFoundError, match="range"):
        load_brisque_model(path)
