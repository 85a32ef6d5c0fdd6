import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric

from kd_plugins.extractors import piqe_score
from kd_plugins.metrics import calculate_brisque, calculate_lpips, calculate_piqe

data = pytest.importorskip("skimage.data", reason="scikit-image brings the photos")


def bgr() -> np.ndarray:
    return data.chelsea()[..., ::-1]


def test_piqe_is_called_as_basicsr_calls_metrics():
    image = bgr()
    score = calculate_metric({"img": image, "img2": image}, {"type": "calculate_piqe", "crop_border": 4})
    cut = torch.from_numpy(image[4:-4, 4:-4, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    assert score == pytest.approx(piqe_score(cut).item(), abs=1e-4)
    assert calculate_piqe(image, input_order="HWC") == calculate_piqe(image.transpose(2, 0, 1), input_order="CHW")


def test_piqe_of_a_float_image_and_of_the_y_channel():
    image = bgr()
    assert calculate_piqe(image.astype(np.float64)) == calculate_piqe(image)
    assert np.isfinite(calculate_piqe(image, test_y_channel=True))


def test_brisque_without_a_model_says_where_it_can_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("KD_BRISQUE_MODEL", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="opencv_contrib"):
        calculate_metric({"img": bgr()}, {"type": "calculate_brisque", "crop_border": 0})


def test_cropping_everything_away_is_said():
    with pytest.raises(ValueError, match="crop_border"):
        calculate_brisque(np.zeros((8, 8, 3), np.uint8), crop_border=4, model="unused")


def test_lpips_is_zero_for_equal_images_and_more_for_a_blurred_one(tmp_path, monkeypatch):
    pytest.importorskip("lpips", reason="lpips is not installed")
    import cv2
    from torchvision.models import alexnet

    torch.manual_seed(0)
    file = tmp_path / "alexnet.pth"
    torch.save(alexnet(weights=None).state_dict(), file)
    image = np.ascontiguousarray(bgr()[:96, :96])
    blurred = cv2.GaussianBlur(image, (0, 0), 3)
    assert calculate_lpips(image, image, backbone=file) == 0
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert calculate_lpips(image, blurred, backbone="~/alexnet.pth") > 1e-4


def test_lpips_backbone_that_cannot_be_had_is_said(tmp_path):
    pytest.importorskip("lpips", reason="lpips is not installed")
    with pytest.raises(FileNotFoundError, match="torchvision"):
        calculate_lpips(bgr(), bgr(), backbone=tmp_path / "none.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no torchvision checkpoint"):
        calculate_lpips(bgr(), bgr(), backbone=tmp_path / "other.pth")


def test_lpips_of_different_shapes_is_said():
    with pytest.raises(ValueError, match="shapes"):
        calculate_lpips(bgr(), bgr()[:-1])
