"""Option files that tests change: the bundled ones, and a short one."""

from pathlib import Path

OPTIONS = Path(__file__).parents[1] / "options"


def text_of(name: str) -> str:
    return (OPTIONS / f"{name}.yml").read_text(encoding="utf-8")


GOOD = text_of("slkd_derain")
MINIMAL = """
name: trial
model_type: SLKDModel
num_gpu: auto
manual_seed: 7
scale: 1
datasets:
  train: {name: photos, type: PairedImageDataset, dataroot_gt: ~/photos}
  val_1: {name: held, type: PairedImageDataset, dataroot_gt: /photos, dataroot_lq: ~}
network_g: {type: Restormer}
path: {pretrain_network_g: ~/net.pth, resume_state: ~, strict_load_g: true}
train: {optim_g: {type: Adam, lr: 1e-4}}
val: {val_freq: 5000, save_img: false}
logger: {print_freq: 100, save_checkpoint_freq: 5000, use_tb_logger: true}
"""
