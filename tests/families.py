"""Small networks of every family that the tests know, as blocks of an option file; tools/export_families.py exports them."""

from pathlib import Path

CLASSES = Path(__file__).parent / "teachers" / "classes"
RGB = {"num_in_ch": 3, "num_out_ch": 3}
SWIN = {"type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "mlp_ratio": 2, "pad_to": 4}
# a teacher, and what its student has instead
FAMILIES = {
    "EDSR": ({"type": "EDSR", **RGB, "num_feat": 8, "num_block": 4, "upscale": 4}, {"num_feat": 4, "num_block": 2}),
    "RCAN": (
        {"type": "RCAN", **RGB, "num_feat": 8, "num_group": 3, "num_block": 2, "squeeze_factor": 4, "upscale": 2},
        {"num_feat": 4, "num_group": 2, "num_block": 1},  # the attention squeezes to one channel
    ),
    "MSRResNet": ({"type": "MSRResNet", **RGB, "num_feat": 8, "num_block": 4, "upscale": 4}, {"num_feat": 4, "num_block": 2}),
    "SRVGGNetCompact": (
        {"type": "SRVGGNetCompact_basicsr", "num_feat": 8, "num_conv": 4, "upscale": 2},
        {"num_feat": 4, "num_conv": 2},
    ),
    "RRDBNet": (
        {"type": "RRDBNet", **RGB, "scale": 2, "num_feat": 8, "num_block": 3, "num_grow_ch": 4, "pad_to": 2},
        {"num_feat": 4, "num_block": 1, "num_grow_ch": 2},
    ),
    "SwinIR": (
        {**SWIN, "embed_dim": 12, "depths": [4, 2], "num_heads": [2, 2], "upsampler": "pixelshuffle", "resi_connection": "3conv"},
        {"embed_dim": 8, "depths": [2, 1]},
    ),
    "SwinIR of fewer heads": (
        {**SWIN, "embed_dim": 12, "depths": [2, 2], "num_heads": [3, 3], "upsampler": "pixelshuffledirect"},
        {"embed_dim": 8, "depths": [2], "num_heads": [2]},
    ),
    "Uformer": (
        {"type": "Uformer", "embed_dim": 4, "depths": [2, *[1] * 7, 2], "num_heads": [1, *[2] * 7, 1]},
        {"embed_dim": 2, "depths": [1] * 9},
    ),
    "SCUNet": ({"type": "SCUNet", "config": [2] + [1] * 6, "dim": 128}, {"dim": 64, "config": [1] * 7}),
    "DRUNet": (
        {"type": "DRUNet", "in_nc": 4, "out_nc": 3, "nc": [8, 12, 16, 20], "nb": 3, "noise_level": 25},
        {"nc": [4, 8, 8, 16], "nb": 2},
    ),
    "DnCNN": ({"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 8, "nb": 8, "act_mode": "BR"}, {"nc": 4, "nb": 5}),
    "HAT": (
        {
            "type": "HAT", "upscale": 2, "img_size": 16, "window_size": 8, "embed_dim": 24, "depths": [4, 2], "num_heads": [2, 2],
            "mlp_ratio": 2, "compress_ratio": 3, "squeeze_factor": 6, "upsampler": "pixelshuffle", "overlap_ratio": 0.5,
        },
        {"embed_dim": 12, "depths": [2, 1]},
    ),
    "SAFMN": ({"type": "SAFMN", "dim": 16, "n_blocks": 3, "upscaling_factor": 2}, {"dim": 8, "n_blocks": 1}),
    "PLKSR": (
        {"type": "spandrel.architectures.PLKSR.PLKSR", "dim": 16, "n_blocks": 4, "upscaling_factor": 2},
        {"dim": 8, "n_blocks": 2},
    ),
    "BSRN": (
        {
            "file": str(CLASSES / "bsrn_arch.py"), "class": "BSRN", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 16,
            "num_block": 2, "upscale": 2,
        },
        {"num_feat": 8},
    ),
    "FFTformer": (
        {"type": "FFTformer", "dim": 8, "num_blocks": [2, 1, 1], "num_refinement_blocks": 1},
        {"dim": 4, "num_blocks": [1, 1, 1]},
    ),
}  # fmt: skip
# as small as it goes
ARCHITECTURES = {
    "EDSR": {"type": "EDSR", **RGB, "num_feat": 4, "num_block": 1, "upscale": 2},
    "RCAN": {"type": "RCAN", **RGB, "num_feat": 4, "num_group": 1, "num_block": 1, "squeeze_factor": 2, "upscale": 2},
    "RRDBNet": {"type": "RRDBNet", **RGB, "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2},
    "SwinIR": {
        "type": "SwinIR", "upscale": 2, "img_size": 12, "window_size": 4, "embed_dim": 4, "depths": [1], "num_heads": [1],
        "mlp_ratio": 1, "upsampler": "pixelshuffledirect",
    },
    "SRVGGNetCompact": {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 2},
    "Restormer": {"type": "Restormer", "dim": 2, "num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1] * 4},
    "NAFNet": {"type": "NAFNet", "width": 2, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "Uformer": {"type": "Uformer", "embed_dim": 2, "depths": [1] * 9, "num_heads": [1] * 9},
    "SCUNet": {"type": "SCUNet", "config": [1] * 7, "dim": 64},
    "DRUNet": {"type": "DRUNet", "in_nc": 4, "out_nc": 3, "nc": [4] * 4, "nb": 2, "noise_level": 25},
    "DnCNN": {"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R"},
    "FFTformer": {"type": "FFTformer", "dim": 4, "num_blocks": [1] * 3, "num_refinement_blocks": 1},
    "SPAN": {"type": "SPAN", **RGB, "feature_channels": 4, "upscale": 2},
    "SAFMN": {"type": "SAFMN", "dim": 8, "n_blocks": 1, "upscaling_factor": 2},
    "PLKSR": {"type": "spandrel.architectures.PLKSR.PLKSR", "dim": 8, "n_blocks": 1, "upscaling_factor": 2},
}  # fmt: skip
# of these, those that enlarge the image; and what gives each more than one stage
ENLARGING = ("EDSR", "RCAN", "RRDBNet", "SwinIR", "SRVGGNetCompact", "SPAN", "SAFMN", "PLKSR")
DEEPER = {
    "EDSR": {"num_block": 6},
    "RCAN": {"num_group": 10},
    "RRDBNet": {"num_block": 4},
    "SwinIR": {"depths": [1] * 6, "num_heads": [1] * 6},
    "SRVGGNetCompact": {"num_conv": 7},
    "Restormer": {"num_blocks": [2, 1, 2, 1], "num_refinement_blocks": 2},
    "NAFNet": {"enc_blk_nums": [1, 2, 1], "middle_blk_num": 2, "dec_blk_nums": [1, 2, 1]},
    "Uformer": {"depths": [1, 2, 1, 1, 1, 1, 1, 2, 1]},
    "SCUNet": {"config": [1, 2, 1, 1, 1, 2, 1]},
    "SAFMN": {"n_blocks": 4},
    "PLKSR": {"n_blocks": 5},
}
