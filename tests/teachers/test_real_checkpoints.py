"""Published checkpoints restore real images as well as they were published to."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr
from basicsr.utils import img2tensor, tensor2img

from kd_plugins.teachers import build_teacher

CLASSES = Path(__file__).parent / "classes"


def enlarged(teacher, shared, scale):
    """PSNR (Y channel) on Set5's bird."""
    small, large = (cv2.imread(str(shared(f"set5/{name}.png"))) for name in (f"LR_bicubic/X{scale}/birdx{scale}", "HR/bird"))
    image = np.asarray(tensor2img([teacher(img2tensor(small.astype(np.float32) / 255)[None]).image]))
    return calculate_psnr(image, large[: image.shape[0], : image.shape[1]], crop_border=scale, test_y_channel=True)


@pytest.mark.parametrize(("scale", "at_least"), [(2, 40.9), (4, 35.1)])
def test_dctlsa_is_recognised_and_enlarges(shared, scale, at_least):
    teacher = build_teacher({"checkpoint": str(shared(f"weights/dctlsa_x{scale}.pt"))})
    assert type(teacher.net).__name__ == "DCTLSA"
    assert enlarged(teacher, shared, scale) > at_least


def test_dncnn_is_recognised_and_denoises(shared):
    teacher = build_teacher({"checkpoint": str(shared("weights/dncnn_gray_sigma25.pth"))})
    clean = img2tensor(cv2.imread(str(shared("set5/HR/bird.png")), cv2.IMREAD_GRAYSCALE)[..., None].astype(np.float32) / 255)[None]
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    assert 10 * torch.log10(1 / (teacher(noisy).image - clean).square().mean()) > 31  # 20.2 before


def test_bsrn_comes_out_of_a_class_file_with_its_published_names(shared):
    block = {"file": str(CLASSES / "bsrn_arch.py"), "class": "BSRN", "checkpoint": str(shared("weights/net_g_BSRN_x4.pth"))}
    assert enlarged(build_teacher(block), shared, 4) > 35.1
    with pytest.raises(ValueError, match="does not fit BSRN: .*Some names agree"):
        build_teacher({**block, "num_block": 5})
    with pytest.raises(ValueError, match="nor does spandrel recognise it; expected `type: NAME` or `file: FILE.py, class: NAME`"):
        build_teacher({"checkpoint": block["checkpoint"]})
