"""Small models, made once."""

import pytest
import torch

from kd_plugins.deploy.model import Model
from kd_plugins.teachers import build_source

BLOCKS = {
    "restormer": {"type": "Restormer", "dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]},
    "nafnet": {"type": "NAFNet", "width": 8, "enc_blk_nums": [1], "middle_blk_num": 0, "dec_blk_nums": [1]},
    "swinir": {
        "type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "mlp_ratio": 2, "embed_dim": 8, "depths": [2],
        "num_heads": [2], "upsampler": "pixelshuffledirect", "pad_to": 4,
    },
    "srresnet": {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 4},
}  # fmt: skip


def make_model(name):
    """A model of small weights, none of them zero."""
    torch.manual_seed(0)
    net = build_source(BLOCKS[name], "model").eval().requires_grad_(False)
    for tensor in net.parameters():
        tensor.add_(0.05 * torch.randn_like(tensor))
    return Model(net, name, torch.device("cpu"), block=BLOCKS[name])


@pytest.fixture(scope="session")
def models():
    """The models by name; not to be changed."""
    return {name: make_model(name) for name in BLOCKS}
