"""What the option files of BasicSR's forks say in words of their own: Restormer's, NAFNet's, traiNNer-redux's and neosr's."""

from __future__ import annotations

from kd_plugins.arguments.block_specs import Fork

_NOISE = "here a dataset degrades by `degradation: {type: noise, sigma: ...}` of DegradedPhotoDataset"

_REDUX, _NEOSR, _BOTH = "traiNNer-redux", "neosr", "traiNNer-redux and neosr"
_NOT_HERE = "which nothing here does"
_AMP = "mixed precision; here `amp: bf16` or `amp: fp16`"
_SMALL_CROP = "the crop of the small image; here `gt_size`, larger by the scale"
_PARTS = "sums the gradients of so many batches; here a batch of all their images and `train: accumulate` with that number of parts"
_MOA = Fork(_REDUX, "goes with use_moa")
_OTF = Fork(_REDUX, "a degradation that Real-ESRGAN's own pipeline, which runs here, does not have", changes_training=True)
_LOSS = Fork(_NEOSR, "a loss of its own; here a registered loss, as a term of `train: distill`", changes_training=True)


FORKS: dict[str, dict[str, Fork]] = {
    "top": {
        "use_amp": Fork(_BOTH, _AMP),
        "amp_bf16": Fork(_REDUX, _AMP),
        "bfloat16": Fork(_NEOSR, _AMP),
        "use_channels_last": Fork(_REDUX, "the memory layout; here `channels_last: true`"),
        "use_compile": Fork(_REDUX, "here `compile: true`"),
        "compile_mode": Fork(_REDUX, "here `compile: {mode: ...}`"),
        "fast_matmul": Fork(_BOTH, f"lets GPUs round in products of matrices, {_NOT_HERE}"),
        "deterministic": Fork(_BOTH, f"asks PyTorch for deterministic algorithms, {_NOT_HERE}; `manual_seed` seeds all of it"),
        "detect_anomaly": Fork(_REDUX, "looks for what is not finite; here such a step is skipped, and explained"),
        "input_pixel_format": Fork(_REDUX, "the colours of the input; here `color: y` of a dataset", True, off="rgb"),
        "output_pixel_format": Fork(_REDUX, "the colours of the output; here `color: y` of a dataset", True, off="rgb"),
        "degradations": Fork(
            _NEOSR,
            "Real-ESRGAN's; here its keys stand at the top, those of the kernels in datasets: train (RealESRGANDataset)",
            changes_training=True,
        ),
        "dataroot_lq_prob": Fork(_REDUX, f"mixes pairs of files with those made on the way, {_NOT_HERE}", True),
        **dict.fromkeys(("lq_usm", "blur_prob", "blur_prob2", "thicklines_prob", "jpeg_prob", "jpeg_prob2"), _OTF),
        **dict.fromkeys((f"resize_mode_{kind}{number}" for kind in ("list", "prob") for number in ("", "2", "3")), _OTF),
        "high_order_degradations_debug": Fork(_REDUX, f"saves degraded images to look at, {_NOT_HERE}"),
        "high_order_degradations_debug_limit": Fork(_REDUX, "goes with high_order_degradations_debug"),
    },
    "logger": {
        "total_iter": Fork(_NEOSR, "the last iteration; here `train: total_iter`", changes_training=True),
        "save_checkpoint_format": Fork(_REDUX, "here .pth; `basicsr export` writes .safetensors"),
        "save_tb_img": Fork(_NEOSR, "pictures in TensorBoard; here `val: panels` says how many"),
    },
    "train": {
        "ema": Fork(_NEOSR, "averages the weights; here `ema_decay`", changes_training=True),
        "ema_power": Fork(_REDUX, "lets the average's decay grow; here it is `ema_decay` from the start"),
        "ema_switch_iter": Fork(_REDUX, f"copies the average into the network that is trained, {_NOT_HERE}", True),
        "losses": Fork(
            _REDUX, "a list of losses; here pixel_opt, perceptual_opt, `gan` and the terms of `distill`", changes_training=True
        ),
        "adaptive_d": Fork(_REDUX, f"lets the discriminator wait for the generator, {_NOT_HERE}", True),
        "use_moa": Fork(_REDUX, f"mixes the images of a batch, {_NOT_HERE}", True),
        **dict.fromkeys(("moa_augs", "moa_probs", "moa_debug", "moa_debug_limit"), _MOA),
        "wavelet_guided": Fork(_NEOSR, "takes losses of wavelet bands; here GatedWaveletLoss is a term of `distill`", True),
        "wavelet_init": Fork(_NEOSR, "goes with wavelet_guided"),
        **dict.fromkeys(
            ("match_lq", "match_lq_colors"), Fork(_NEOSR, f"moves the output's colours to those of the input, {_NOT_HERE}", True)
        ),
        "sam": Fork(_NEOSR, f"looks for flat minima with a second step, {_NOT_HERE}", True),
        "sam_init": Fork(_NEOSR, "goes with sam"),
        "eco": Fork(_NEOSR, f"trains towards a mean of output and truth, {_NOT_HERE}; a teacher's `logits` term is nearest", True),
        "eco_init": Fork(_NEOSR, "goes with eco"),
        **dict.fromkeys(
            (f"{loss}_opt" for loss in ("mssim", "consistency", "fdl", "dists", "ff", "ncc", "kl", "msswd")),
            _LOSS,
        ),
        "mixing_augs": Fork(
            "Restormer",
            "mixes the images of a batch, which nothing here does",
            changes_training=True,
            switch="mixup",
        ),
    },
    "val": {
        "window_size": Fork(
            "Restormer", "pads whole images to a multiple of it; here each network is padded to the sizes that it is seen to need"
        ),
        "rgb2bgr": Fork("Restormer and NAFNet", "the order of colours in saved images, always OpenCV's here"),
        "use_image": Fork("Restormer and NAFNet", "whether metrics see 8-bit images, which they always do here"),
        "max_minibatch": Fork("NAFNet", "how many parts of an image are restored at once, here always one"),
        "tile_size": Fork(_REDUX, "the side of a tile; here `tile`", True),
        "val_enabled": Fork(_REDUX, "whether to validate; here without `datasets: val` nothing is"),
        "metrics_enabled": Fork(_REDUX, "whether to score; here without `metrics` nothing is"),
        "trans_num": Fork("NAFNet", "averages over turned and mirrored images; each is restored once here"),
    },
    "dataset": {
        "geometric_augs": Fork(
            "Restormer", "flips and turns; here `use_hflip: true` and `use_rot: true` do", changes_training=True
        ),
        "use_flip": Fork("NAFNet", "mirrors; here `use_hflip: true` does", changes_training=True),
        "sigma_type": Fork("Restormer", _NOISE, changes_training=True),
        "sigma_range": Fork("Restormer", _NOISE, changes_training=True),
        "sigma_test": Fork("Restormer", _NOISE, changes_training=True),
        "in_ch": Fork("Restormer", "channels of the images; three here"),
        "lq_size": Fork(_REDUX, _SMALL_CROP, changes_training=True),
        "patch_size": Fork(_NEOSR, _SMALL_CROP, changes_training=True),
        **dict.fromkeys(("batch", "batch_size"), Fork(_NEOSR, "here `batch_size_per_gpu`", changes_training=True)),
        "accum_iter": Fork(_REDUX, _PARTS, changes_training=True, off=1),
        "accumulate": Fork(_NEOSR, _PARTS, changes_training=True, off=1),
        "augmentation": Fork(_NEOSR, f"mixes the images of a batch, {_NOT_HERE}", True, off=["none"]),
        "aug_prob": Fork(_NEOSR, "goes with augmentation"),
    },
}
"""By the block they stand in."""

RENAMED: dict[str, dict[str, str]] = {
    "model": {
        "ImageCleanModel": "Restormer's name; its counterpart is DistillationModel",
        "ImageRestorationModel": "NAFNet's name; its counterpart is DistillationModel",
        "image": "neosr's name; its counterpart is DistillationModel",
        "otf": "neosr's name; its counterpart is DistillationModel, with RealESRGANDataset",
    },
    "dataset": {
        "paired": "neosr's name; its counterpart is PairedImageDataset",
        "otf": "neosr's name; its counterpart is RealESRGANDataset",
        "single": "neosr's name; its counterpart is SingleImageDataset",
        "pairedimagedataset": "traiNNer-redux's name; its counterpart is PairedImageDataset",
        "realesrgandataset": "traiNNer-redux's name; its counterpart is RealESRGANDataset",
        "singleimagedataset": "traiNNer-redux's name; its counterpart is SingleImageDataset",
        "Dataset_PairedImage": "Restormer's name; its counterpart is PairedImageDataset",
        "Dataset_GaussianDenoising": f"Restormer's name; {_NOISE}",
        "Dataset_DefocusDeblur_DualPixel_16bit": "Restormer's name; no dataset here reads pairs of views",
    },
    "loss": {"PSNRLoss": "NAFNet's name; no loss here is the PSNR itself, nearest in meaning are MSELoss and L1Loss"},
    "scheduler": {
        "CosineAnnealingRestartCyclicLR": "Restormer's name; its `eta_mins`, one for each period, have no counterpart: "
        "CosineAnnealingRestartLR takes one `eta_min` for all",
        "TrueCosineAnnealingLR": "NAFNet's name; BasicSR's own models do not have it, those of kd_plugins do",
        "CosineAnnealingLR": "torch's; BasicSR's own models do not have it, those of kd_plugins do",
    },
}
"""Names of theirs, by the kind of registry: whose they are, and what to write instead."""
