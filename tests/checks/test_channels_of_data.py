"""The channels of the data are held against those that the networks take."""

import json

import pytest
import torch
from option_texts import GOOD
from safetensors.torch import save_file

EDSR = "type: EDSR, num_in_ch: {0}, num_out_ch: {0}, upscale: 1"
PLAIN = ("model_type=DistillationModel", "init=random", "teacher=~", f"network_g={{{EDSR.format(3)}}}")
GRAY = ("datasets:train:color=y", "datasets:val:color=y")


def test_colour_and_gray_are_fine_where_all_agree(check):
    check(GOOD, *PLAIN, code=0)
    check(GOOD, *PLAIN, *GRAY, f"network_g={{{EDSR.format(1)}}}", code=0)
    check(GOOD, *PLAIN, *GRAY, "network_g={type: DnCNN}", code=0)  # by its defaults
    check(GOOD, *PLAIN, "network_g={type: DRUNet, in_nc: 4, out_nc: 3, noise_level: 25}", code=0)
    check(GOOD, *PLAIN, *GRAY, "network_g={file: none.py, class: Net}")  # no such file; of its channels nothing is known


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (GRAY, "network_g:num_in_ch: it takes images of 3 channels, those of datasets:train have 1; expected 1, or no `color: y`"),
        (
            (f"network_g={{{EDSR.format(1)}}}",),
            "network_g:num_in_ch: it takes images of 1 channels, those of datasets:train",
        ),
        (("network_g={type: DnCNN}",), "network_g:type: it takes images of 1 channels, those of datasets:train have 3"),
        (("network_g={type: SourcedNetwork, network: {type: DnCNN}}",), "network_g:network:type: it takes images of 1 channels"),
        (("teacher={checkpoint: gray.safetensors}",), "teacher:checkpoint: it takes images of 1 channels"),
        (GRAY[:1], "datasets:val:color: makes images of 3 channels, expected 1, as those of datasets:train have"),
        (("datasets:train:color=gray",), "datasets:train:color: 'gray', expected one of y, nothing"),
    ],
)
def test_other_channels_are_refused(check, entries, said, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "gray.safetensors", metadata={"network": json.dumps({"type": "DnCNN", "nb": 5})})
    lines = check(GOOD, *PLAIN, *entries)
    assert any(said in line for line in lines), lines
