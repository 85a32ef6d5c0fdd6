"""Runs of seconds, of each method: what fuzz.py damages and kill_runs.py kills."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from kd_plugins.archs import Restormer
from kd_plugins.extractors import save_tokenizer
from kd_plugins.extractors.vq_encoder import VQTokenizer

TEACHER = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]}


def small_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Options by method. Their teacher and tokenizer, of random weights, are written to the folder."""
    torch.manual_seed(0)
    metadata = {"network": json.dumps({"type": "Restormer", **TEACHER})}
    save_file(Restormer(**TEACHER).state_dict(), folder / "teacher.safetensors", metadata=metadata)
    layout = {"ch": 4, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 1, "attention_levels": [4]}
    net = VQTokenizer(**layout, z_channels=8, embed_dim=6, n_embed=12, groups=2)
    save_tokenizer(net, folder / "tokenizer.safetensors", torch.float32)

    degraded = {"type": "DegradedPhotoDataset", "photos": "builtin", "degradation": {"type": "rain"}}
    loader = {"use_shuffle": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 2}
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}, "piqe": {"type": "calculate_piqe", "better": "lower"}}
    options = {
        "name": "small",
        "model_type": "SLKDModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": {"name": "t", **degraded, "gt_size": 32, **loader}, "val": {"name": "v", **degraded}},
        "network_g": {"type": "Restormer", **TEACHER, "dim": 4},
        "teacher": {"checkpoint": str(folder / "teacher.safetensors")},
        "init": "teacher",
        "features": {"encoder": "auto", "decoder": "auto"},
        "path": {"pretrain_network_g": None, "resume_state": None, "strict_load_g": True},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [100], "restart_weights": [1], "eta_min": 1e-6},
            "total_iter": 2,
            "warmup_iter": -1,
            "grad_clip": 0.01,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "val": {"val_freq": 1000, "save_img": False, "metrics": metrics},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }
    skd, dckd, plain = (copy.deepcopy({**options, "model_type": f"{name}Model"}) for name in ("SKD", "DCKD", "Distillation"))
    skd["train"]["distill"] = {"gk": {"window": 8, "learnable": True}, "cl": {"negatives": ["own", "others"]}}
    dckd["dckd"] = {
        "tokenizer": {"weights": str(folder / "tokenizer.safetensors")},
        "history": {"every": 2},
        "negatives": {"count": 2},
    }
    dckd["features"] = None
    plain["train"]["distill"] = {
        "fitnet": {"type": "FitNetFeatureLoss", "between": "encoder"},
        "consistency": {"type": "L1Loss", "view": "transformed"},
    }
    plain["train"]["transforms"] = {"invert": 0.5}
    plain["features"] = {"encoder": [["encoder_level1", "encoder_level1"]]}
    return {"SLKD": options, "SKD": skd, "DCKD": dckd, "baseline": plain}
