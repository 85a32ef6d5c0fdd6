"""Runs of seconds, of each method: what fuzz.py damages and kill_runs.py kills."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from kd_plugins.archs import Restormer
from kd_plugins.extractors import save_tokenizer
from kd_plugins.extractors.vq_encoder import VQTokenizer
from kd_plugins.teachers import build_registered

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
    psd = copy.deepcopy({**options, "model_type": "PSDModel", "features": None})
    psd["train"]["distill"] = {
        "spec": {"norm": "l1", "fade": {"from": 0.5, "to": 1, "end": 0.5}},
        "img": {"trust": {"window": 7}, "every": 2},
    }
    tasks = copy.deepcopy(options)
    kinds = {"rain": {"type": "rain"}, "noise": {"type": "noise", "sigma": 25}}
    photos = {name: {**degraded, "degradation": kind, "gt_size": 32} for name, kind in kinds.items()}
    tasks["teacher"] = {"tasks": {name: dict(options["teacher"]) for name in kinds}}
    tasks["datasets"] = {"train": {"name": "t", "type": "TaskDataset", "tasks": photos, **loader}}
    del tasks["val"]
    return {"SLKD": options, "SKD": skd, "DCKD": dckd, "PSD": psd, "baseline": plain, "tasks": tasks}


def further_blocks(folder: Path) -> list[dict[str, Any]]:
    """What may stand in place of the blocks of `small_runs`: values that go together, by their keys ('train:scheduler').

    Weights and photos for them are written to the folder.
    """
    torch.manual_seed(0)
    nafnet = {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}
    torch.save({"params": Restormer(**TEACHER).state_dict()}, folder / "teacher.pth")
    torch.save({"params": build_registered({"type": "NAFNet", **nafnet}, "teacher").state_dict()}, folder / "nafnet.pth")
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for number in (0, 1):
        cv2.imwrite(str(photos / f"{number}.png"), np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8))
    own, file, other = {"checkpoint": str(folder / "teacher.safetensors")}, str(folder / "teacher.pth"), str(folder / "nafnet.pth")
    disk: dict[str, Any] = {"dataroot_lq": str(photos), "io_backend": {"type": "disk"}}
    loader = {"use_shuffle": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    pair = {"name": "t", "type": "PairedImageDataset", "dataroot_gt": str(photos), **disk}
    crop = {"gt_size": 32, "use_hflip": True, "use_rot": True, **loader}
    photo = {"name": "t", "type": "DegradedPhotoDataset", "photos": str(photos), **crop}
    degradation = [{"type": "blur"}, {"type": "noise", "sigma": [5, 25]}]
    metrics = ("psnr", "ssim", "niqe", "brisque", "piqe", "lpips")
    schedulers: list[dict[str, Any]] = [
        {"type": "MultiStepLR", "milestones": [1, 2], "gamma": 0.5},
        {"type": "MultiStepRestartLR", "milestones": [1, 2], "restarts": [0, 1], "restart_weights": [1, 0.5]},
        {"type": "CosineAnnealingLR", "T_max": 4, "eta_min": 1e-6},
        {"type": "CosineAnnealingRestartLR", "periods": [1, 3], "restart_weights": [1, 0.5], "eta_min": 1e-6},
    ]
    feature_losses = (
        *("BrisqueFeatureLoss", "PiqeFeatureLoss", "FitNetFeatureLoss", "ChannelWiseKLLoss", "AttentionTransferFeatureLoss"),
        *("SpatialAffinityFeatureLoss", "CrossNetAttentionLoss"),
    )
    output_losses = (
        "SpatialKLLoss",
        "ContrastiveImageLoss",
        "CharbonnierLoss",
        "MSELoss",
        "ContrastRatioLoss",
        "CodeDistributionLoss",
        "GatedWaveletLoss",
    )
    fades = ({"end": 1.0}, {"from": 0, "to": 1, "start": 1, "end": 3}, {"from": 0.5, "to": 2.0, "start": 0.2, "shape": "linear"})
    trusts = ({"window": 1}, {"window": 16, "tau": 0.02}, {})
    terms: list[dict[str, Any]] = [
        *({"type": kind, "between": ["encoder"], "view": "clean", "loss_weight": 0.1} for kind in feature_losses),
        *({"type": kind, "between": "output", "view": "transformed", "loss_weight": 0.1} for kind in output_losses),
        *({"type": "L1Loss", "between": "output", "view": view} for view in ("zoomed", "zoomed_out")),
        *({"type": "CrossNetAttentionLoss", "between": ["encoder", "decoder"], "trust": trust} for trust in trusts),
        *({"type": "MSELoss", "between": "output", "trust": {}, "fade": fade} for fade in fades),
        {"type": "ExtractorLoss", "extractor": {"type": "PiqeExtractor"}},
        {"type": "ContrastiveImageLoss", "extractor": {"type": "TeacherExtractor"}},
        {"type": "L1Loss", "between": "output"},
    ]
    plain = {"init": "random", "model_type": "DistillationModel", "features": None, "train:distill": {"own": terms[-1]}}
    together = [
        {**plain, "teacher": {"ensemble": [{**own, "weight": 0.7}, {"type": "Restormer", **TEACHER, "checkpoint": file}]}},
        {**plain, "teacher": {"type": "NAFNet", **nafnet, "checkpoint": other, "pad_to": 8}},
        {**plain, "network_g": {"type": "NAFNet", **nafnet}},
        {**plain, "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1}},
        {"network_g": {"type": "Restormer", **TEACHER}, "path:pretrain_network_g": file},
    ]
    without_truth = {"model_type": "SKDModel", "train:pixel_opt": None, "val": None}
    together += [
        {**without_truth, "datasets:train": {**photo, "degradation": {"type": "defocus"}, "unlabelled": True}},
        {**without_truth, "datasets:train": {"name": "t", "type": "DegradedImageDataset", **disk, **crop}},
    ]
    single: list[tuple[str, Any]] = [
        ("teacher", {"type": "Restormer", **TEACHER, "checkpoint": file, "param_key": "params"}),
        ("teacher_clean", own),
        ("network_g", {"from_teacher": {"width": 0.5}}),
        ("network_g", {"type": "SourcedNetwork", "network": {"type": "Restormer", **TEACHER, "checkpoint": file}}),
        ("init", {"from": "teacher", "channels": "importance", "refit": True, "batches": 1}),
        ("features", {"encoder": [["encoder_level1", "encoder_level1"]], "own": [["latent", "latent"]], "decoder": "auto"}),
        ("amp", "bf16"),
        ("channels_last", True),
        ("datasets:train", {**pair, **crop}),
        ("datasets:train", {**photo, "degradation": degradation, "cache": True, "seed": 1}),
        ("datasets:val_2", {**pair, "name": "w"}),
        ("datasets:val_2", {"name": "w", "type": "SingleImageDataset", **disk}),
        ("val:metrics", {name: {"type": f"calculate_{name}", "crop_border": 0, "better": "lower"} for name in metrics}),
        *(("train:scheduler", scheduler) for scheduler in schedulers),
        *(("train:optim_g", {"type": kind, "lr": 1e-3}) for kind in ("AdamW", "SGD", "RMSprop", "Adafactor")),
        *((f"train:distill:{name}", term) for name in ("kl", "own") for term in terms),
        *((f"train:distill:{name}:trust", trust) for name in ("kl", "nc", "img", "own") for trust in trusts),
        *((f"train:distill:{name}:fade", fade) for name in ("kl", "spec", "own") for fade in fades),
        *((f"train:distill:{name}:every", 2) for name in ("kl", "nc", "img")),
        ("train:transforms", {"invert": 0.5, "hflip": 1, "vflip": 0, "transpose": 0.5}),
        ("train:max_bad_steps", 3),
        ("dckd", {"variant": "official", "history": {"every": [1, 2], "block": 10, "decay": 0.5}, "negatives": {"count": 1}}),
    ]
    return [*together, *({key: value} for key, value in single)]
