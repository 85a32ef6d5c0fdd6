"""Stages, measured on every architecture that the tests know."""

import pytest
from families import ARCHITECTURES, DEEPER, ENLARGING

from kd_plugins.features import find_stages
from kd_plugins.teachers import build_source

STAGES = {
    "EDSR": "body.0 body.2 | body.3 body.5",
    "RCAN": "body.1 body.4 | body.6 body.9",
    "RRDBNet": "body.0 body.1 | body.2 body.3",
    "SwinIR": "layers.0.conv layers.2.conv | layers.3.conv layers.5.conv",
    "SRVGGNetCompact": "body.2 body.6 | body.10 body.14",
    "Restormer": "encoder_level1 encoder_level2 encoder_level3 latent | decoder_level3 decoder_level2 decoder_level1",
    "NAFNet": "encoders.0 encoders.1 encoders.2 middle_blks | decoders.0 decoders.1 decoders.2",
    "Uformer": (
        "encoderlayer_0.blocks.0.mlp.dwconv encoderlayer_1.blocks.1.mlp.dwconv encoderlayer_2.blocks.0.mlp.dwconv "
        "encoderlayer_3.blocks.0.mlp.dwconv conv.blocks.0.mlp.dwconv | decoderlayer_0.blocks.0.mlp.dwconv "
        "decoderlayer_1.blocks.0.mlp.dwconv decoderlayer_2.blocks.1.mlp.dwconv decoderlayer_3.blocks.0.mlp.dwconv"
    ),
    "SCUNet": "m_down1.0 m_down2.1 m_down3.0 m_body | m_up3 m_up2 m_up1",
    "DRUNet": "m_down1.1 m_down2.1 m_down3.1 m_body | m_up3 m_up2 m_up1",
    "DnCNN": "model.0 model.4 | model.8 model.12",
    "FFTformer": "encoder_level1 encoder_level2 encoder_level3 | decoder_level3 decoder_level2 decoder_level1",
    "SPAN": "block_1.c3_r block_3.c3_r | block_4.c3_r block_6.c3_r",
    "SAFMN": "feats.0 feats.1 | feats.2 feats.3",
    "PLKSR": "feats.1 feats.2 | feats.3 feats.5",
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_stages_of_an_architecture_are_measured(name):
    net = build_source({**ARCHITECTURES[name], **DEEPER.get(name, {})}, "teacher")
    found = find_stages(net)
    encoder, decoder = (side.split() for side in STAGES[name].split(" | "))
    assert [stage.layer for stage in found.encoder] == encoder
    assert [stage.layer for stage in found.decoder] == decoder
    sizes = [stage.size for stage in (*found.encoder, *found.decoder)]
    if name in (*ENLARGING, "DnCNN"):
        assert found.flat and set(sizes) == {0.5 if name == "RRDBNet" else 1.0}
    else:
        assert not found.flat and sizes[: len(encoder)] == [0.5**level for level in range(len(encoder))]
        # FFTformer's decoder starts at the bottleneck, the others' one level above it
        levels = [0.5**level for level in range(len(encoder) - (name != "FFTformer"))]
        assert sizes[len(encoder) :] == levels[::-1]
