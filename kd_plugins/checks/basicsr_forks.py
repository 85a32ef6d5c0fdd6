"""What the option files of BasicSR's forks say in words of their own: Restormer's and NAFNet's."""

from __future__ import annotations

from kd_plugins.arguments.block_specs import Fork

_NOISE = "here a dataset degrades by `degradation: {type: noise, sigma: ...}` of DegradedPhotoDataset"

FORKS: dict[str, dict[str, Fork]] = {
    "train": {
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
    },
}
"""By the block they stand in."""

RENAMED: dict[str, dict[str, str]] = {
    "model": {
        "ImageCleanModel": "Restormer's name; its counterpart is DistillationModel",
        "ImageRestorationModel": "NAFNet's name; its counterpart is DistillationModel",
    },
    "dataset": {
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
