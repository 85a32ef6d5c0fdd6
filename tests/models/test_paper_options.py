"""The published recipes of options/paper: networks of the published size, and a short run of each, shrunk."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from kd_plugins.options import read_options
from kd_plugins.train import train_pipeline

FOLDER = Path(__file__).parents[2] / "options" / "paper"
RECIPES = sorted(file.stem for file in FOLDER.glob("*.yml"))
PUBLISHED = {  # millions of parameters, teacher and student; RCAN's as its own authors count it
    "dckd_swinir_x2": (11.75, 1.09),
    "dckd_swinir_x3": (11.94, 1.27),
    "dckd_swinir_x4": (11.90, 1.24),
    "dckd_rcan_x2": (15.44, 5.02),
    "dckd_nafnet_gopro": (17.11, 2.68),
    "dckd_restormer_derain": (26.13, 3.81),
}
SHRUNK = {
    "SwinIR": {"depths": [1], "embed_dim": 4, "num_heads": [2]},
    "RCAN": {"num_feat": 4, "num_group": 1, "num_block": 1, "squeeze_factor": 2},
    "NAFNet": {"width": 2, "enc_blk_nums": [1, 1, 1, 1]},
    "Restormer": {"dim": 2, "num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1] * 4},
}
LABEL_CONSISTENCY = {"dckd_swinir_x2", "dckd_swinir_x3", "dckd_swinir_x4"}  # the authors' option files have it
every_recipe = pytest.mark.parametrize("name", RECIPES)


def network(options, key):
    return build_network({name: value for name, value in options[key].items() if name != "checkpoint"})


def millions(net):
    return round(sum(p.numel() for p in net.parameters()) / 1e6, 2)


@every_recipe
def test_the_networks_have_the_published_size(name):
    options = read_options(str(FOLDER / f"{name}.yml"))
    with torch.device("cpu" if options["network_g"]["type"] == "SwinIR" else "meta"):  # it reads values as it is built
        assert (millions(network(options, "teacher")), millions(network(options, "network_g"))) == PUBLISHED[name]


@every_recipe
def test_the_recipe_holds_the_published_constants(name):
    options = read_options(str(FOLDER / f"{name}.yml"))
    assert options["dckd"]["history"] == {"decay": 0.1, "every": [1000, 2000, 3000], "block": 100_000}
    weights = {"logits": 1, "dcl": 0.1, "ce": 0.001, **({"consistency": 1} if name in LABEL_CONSISTENCY else {})}
    assert {term: block["loss_weight"] for term, block in options["train"]["distill"].items()} == weights
    assert options["dckd"]["variant"] == ("official" if name in LABEL_CONSISTENCY else "paper")
    assert options["train"]["total_iter"] in (200_000, 250_000, 300_000) and options["train"]["optim_g"]["lr"] <= 1e-3
    assert options["init"] == "random"


def write_images(block, scale, size):
    """Pairs where a recipe looks for them, under the names that it expects."""
    for key, sides in (("dataroot_gt", [side * scale for side in size]), ("dataroot_lq", size)):
        name = block["filename_tmpl"].format("a") if key == "dataroot_lq" else "a"
        Path(block[key]).mkdir(parents=True)
        cv2.imwrite(f"{block[key]}/{name}.png", np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8))
    if "meta_info_file" in block:
        Path(block["meta_info_file"]).parent.mkdir(parents=True)
        Path(block["meta_info_file"]).write_text("a.png (64,64,3)\n")


@every_recipe
def test_a_shrunk_copy_trains_validates_saves_and_resumes(name, tokenizer_file, tmp_path, write, monkeypatch, log, capsys):
    monkeypatch.chdir(tmp_path)
    options = read_options(str(FOLDER / f"{name}.yml"))
    for key in ("teacher", "network_g"):
        options[key] = {**options[key], **SHRUNK[options[key]["type"]]}
    torch.save({"params": network(options, "teacher").state_dict()}, "teacher.pth")
    options.update(num_gpu=0)
    options["teacher"]["checkpoint"] = "teacher.pth"
    options["dckd"]["tokenizer"]["weights"] = str(tokenizer_file)
    train = options["datasets"]["train"]
    train.update(gt_size={1: 20, 2: 24, 3: 36, 4: 48}[options["scale"]], num_worker_per_gpu=0, batch_size_per_gpu=1)
    if "stages" in train:
        train["stages"] = [{"until": 1}, {"gt_size": 24}]
    for phase, block in options["datasets"].items():
        write_images(block, options["scale"], (24, 24) if phase == "train" else (13, 19))
    options["train"]["total_iter"] = options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = 1
    options["logger"]["use_tb_logger"] = False

    first = train_pipeline(str(tmp_path), ["-opt", write(options)])
    validation_sets = {block["name"] for phase, block in options["datasets"].items() if phase != "train"}
    assert set(first.scores) == validation_sets
    assert all(np.isfinite(scores[role]["psnr"]) for scores in first.scores.values() for role in ("student", "teacher"))
    assert list(first.updater.losses) == ["l_pix", *(f"l_{term}" for term in options["train"]["distill"])]
    assert all(0 < value < 1e3 for value in first.updater.losses.values())
    if "swinir" in name:
        said = capsys.readouterr().err  # what is said while the run is built
        assert said.count("SwinIR takes images of multiples of 8 alone: others are padded") == 2  # teacher and student
    resumed = train_pipeline(str(tmp_path), ["-opt", write(options), "--auto_resume", "--force_yml", "train:total_iter=2"])
    assert "Resuming training from epoch" in log() and resumed.optimizers[0].state
    for file in ("net_g_2", "net_history_2"):
        assert (tmp_path / f"experiments/{name}/models/{file}.pth").exists()
    assert set(resumed.scores) == validation_sets
