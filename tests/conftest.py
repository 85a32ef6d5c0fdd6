"""Imports the plugin before basicsr, which fails on today's torchvision without it; and a tiny teacher with a tinier student:
a real run in seconds."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import kd_plugins  # noqa: F401
from kd_plugins.archs import Restormer
from kd_plugins.cli import main
from kd_plugins.extractors import save_tokenizer
from kd_plugins.extractors.vq_encoder import VQTokenizer
from kd_plugins.run_options import parse_options

from basicsr.data import build_dataset  # isort: skip
from basicsr.models import build_model  # isort: skip
from basicsr.utils.registry import ARCH_REGISTRY  # isort: skip

TEACHER = {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}
STUDENT = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]}


@pytest.fixture(autouse=True)
def fresh_log():
    """basicsr opens its logger once for a process; each test gets its own, on its own streams."""
    yield
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


@pytest.fixture(autouse=True)
def timed_small(monkeypatch):
    """Networks are timed at the size of a training crop: tests build many models."""
    from kd_plugins.metrics import latency

    monkeypatch.setattr(latency, "_SECONDS", 0.0)


@pytest.fixture
def one_thread():
    """Runs with `num_threads: 1` leave PyTorch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared():
    """A function: the path of something in the folder that KD_SHARED_DATA names; where it is not there, the test is skipped."""

    def find(name):
        path = Path(os.environ.get("KD_SHARED_DATA", "")) / name
        if "KD_SHARED_DATA" not in os.environ or not path.exists():
            pytest.skip(f"set KD_SHARED_DATA to a folder that holds {name}")
        return path

    return find


@pytest.fixture
def said_of(tmp_path, monkeypatch, capsys):
    """Run a command that writes nothing on options, in an empty folder; what it printed, its errors, and its exit code."""

    def run(command, options, *arguments):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "x.yml").write_text(yaml.safe_dump(options))
        code = main([command, "-opt", "x.yml", *arguments])
        assert [file.name for file in tmp_path.iterdir()] == ["x.yml"]
        return (*capsys.readouterr(), code)

    return run


@pytest.fixture
def log():
    """What BasicSR's logger has said so far, as a function."""
    from basicsr.utils import get_root_logger

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.INFO)  # as basicsr does only for a log with a file
    logger.addHandler(handler)
    yield stream.getvalue
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def teacher_network() -> dict:
    return {"type": "Restormer", **TEACHER}


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(Restormer(**TEACHER).state_dict(), file, metadata={"network": json.dumps({"type": "Restormer", **TEACHER})})
    return file


@pytest.fixture
def options(teacher_file) -> dict:
    """The options of a 4-step SLKD run on the bundled photos; a test may change them."""
    return {
        "name": "tiny",
        "model_type": "SLKDModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "photos",
                "type": "DegradedPhotoDataset",
                "photos": "builtin",
                "degradation": {"type": "rain"},
                "gt_size": 32,
                "use_shuffle": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2,
                "dataset_enlarge_ratio": 10,
            },
        },
        "network_g": {"type": "Restormer", **STUDENT},
        "teacher": {"checkpoint": str(teacher_file)},
        "init": "teacher",
        "features": {"encoder": "auto", "decoder": "auto"},
        "path": {"pretrain_network_g": None, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [10], "restart_weights": [1], "eta_min": 1e-6},
            "total_iter": 4,
            "warmup_iter": -1,
        },
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2, "use_tb_logger": True},
    }


@pytest.fixture
def build(write, tmp_path):
    """A model of the options, fed with a batch."""

    def make(options):
        torch.manual_seed(0)
        opt, _ = parse_options(str(tmp_path), True, ["-opt", write(options)])
        model = build_model(opt)
        dataset = build_dataset(opt["datasets"]["train"])
        items = [dataset[index] for index in range(2)]
        model.feed_data({key: torch.stack([item[key] for item in items]) for key in ("lq", "gt") if key in items[0]})
        return model

    return make


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> Path:
    """A tokenizer of random weights."""
    layout = {"ch": 4, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 1, "attention_levels": [4]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VQTokenizer(**layout, z_channels=8, embed_dim=6, n_embed=12, groups=2)
        torch.nn.init.normal_(net.quantize.embedding.weight, std=0.7)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.safetensors"
    save_tokenizer(net, file, torch.float32)
    return file


@pytest.fixture
def dckd_options(options, tokenizer_file) -> dict:
    """The options of a DCKD run whose history model follows every second step."""
    options.update(model_type="DCKDModel", features=None)
    options["dckd"] = {"tokenizer": {"weights": str(tokenizer_file)}, "history": {"every": 2}}
    return options


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Two small real photos: whole ones make validation slow."""
    import cv2
    from skimage import data

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(data, name)()[100:148, 200:264, ::-1])
    return folder


@pytest.fixture
def with_validation(options, photo_folder) -> dict:
    """The same run with validation."""
    options["datasets"]["val"] = {
        "name": "small",
        "type": "DegradedPhotoDataset",
        "photos": str(photo_folder),
        "degradation": {"type": "rain"},
    }
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}, "piqe": {"type": "calculate_piqe", "better": "lower"}}
    options["val"] = {"val_freq": 2, "save_img": False, "metrics": metrics}
    return options


@pytest.fixture
def write(tmp_path):
    """Write options, or a text, as an option file."""

    def to_file(options: dict | str, name: str = "options.yml") -> str:
        file = tmp_path / name
        file.write_text(options if isinstance(options, str) else yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        return str(file)

    return to_file


class Normed(nn.Module):
    """A student with what a step changes beside weights: a batch norm's statistics and counter, a buffer that is replaced."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("table", torch.tensor([1.0, float("-inf")]))

    def forward(self, x):
        if self.training:
            self.passes = self.passes + 1
        return x + self.tail(self.norm(self.head(x)).relu())


@pytest.fixture
def normed(options) -> dict:
    """The options of a run whose student has batch norms, beside a teacher that has no features."""
    ARCH_REGISTRY._obj_map["Normed"] = Normed
    options.update(model_type="DistillationModel", network_g={"type": "Normed"}, init="random", features=None)
    options["train"]["pixel_opt"] = {"type": "L1Loss"}
    options["train"]["distill"] = {"logits": {"type": "L1Loss", "between": "output"}}
    yield options
    del ARCH_REGISTRY._obj_map["Normed"]


@pytest.fixture
def real_esrgan(options, tmp_path) -> dict:
    """The options of a run of six steps on Real-ESRGAN's degradation: a small RRDBNet teaches a smaller compact network."""
    import cv2
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from skimage import data

    folder = tmp_path / "clean"
    folder.mkdir()
    cv2.imwrite(str(folder / "photo.png"), data.astronaut()[:, :, ::-1])
    (folder / "list.txt").write_text("photo.png\n")
    teacher = {"num_in_ch": 3, "num_out_ch": 3, "scale": 4, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    torch.manual_seed(0)
    save_file(RRDBNet(**teacher).state_dict(), tmp_path / "rrdb.safetensors")
    kinds = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
    kernels = {"kernel_list": kinds, "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03], "sinc_prob": 0.1, "blur_kernel_size": 21}
    kernels.update(blur_sigma=[0.2, 3], betag_range=[0.5, 4], betap_range=[1, 2])
    twice = {"resize_prob": [0.2, 0.7, 0.1], "resize_range": [0.15, 1.5], "gaussian_noise_prob": 0.5, "noise_range": [1, 30]}
    twice.update(poisson_scale_range=[0.05, 3], gray_noise_prob=0.4, jpeg_range=[30, 95])
    both = [{f"{key}{number}": value for number in ("", "2") for key, value in block.items()} for block in (kernels, twice)]
    options["datasets"]["train"] = {
        **{"name": "photos", "type": "RealESRGANDataset", "dataroot_gt": str(folder), "meta_info": str(folder / "list.txt")},
        **{"io_backend": {"type": "disk"}, "use_hflip": True, "use_rot": False, "final_sinc_prob": 0.8, **both[0]},
        **{"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 20},
    }
    options.update(model_type="DistillationModel", scale=4, init="random", features=None, num_threads=1)
    options.update(**both[1], second_blur_prob=0.8, gt_size=32, queue_size=4, gt_usm=False)
    options["network_g"] = {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2, "upscale": 4}
    options["teacher"] = {"type": "RRDBNet", **teacher, "checkpoint": str(tmp_path / "rrdb.safetensors")}
    options["logger"]["use_tb_logger"] = False
    options["train"].update(total_iter=6, pixel_opt={"type": "L1Loss"}, distill={"logits": {"type": "L1Loss"}})
    return options
