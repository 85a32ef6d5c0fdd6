"""A tokenizer in miniature."""

import torch
from torch import nn

from kd_plugins.extractors.vq_encoder import VQTokenizer

TINY = {
    **{"ch": 4, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "attention_levels": [4]},
    **{"z_channels": 8, "embed_dim": 6, "n_embed": 10, "groups": 2},
}


def make(**changes):
    torch.manual_seed(0)
    net = VQTokenizer(**{**TINY, **changes})
    for parameter in net.parameters():  # norms and biases too, that each matters
        nn.init.normal_(parameter, std=0.2)
    return net.requires_grad_(False).eval()
